"""DeepSeek's own repositories of DeepSeek-VL, and the conversions that are loaded instead of them. No torch here.

Their `model_type` is `multi_modality`, their classes are those of DeepSeek's own package
(https://github.com/deepseek-ai/DeepSeek-VL), and transformers has neither. Janus shares the type and much of the form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsvl_cli.errors import DsvlError

MODEL_TYPE = "multi_modality"
_OWNER = "deepseek-ai"
# By the layers of the language model, the only size that every original states.
_SIZES_BY_LAYERS = {24: "1.3b", 30: "7b"}
_SIZES_BY_TOWER = {"CLIPVisionTower": "1.3b", "HybridVisionTower": "7b"}


@dataclass(frozen=True, slots=True)
class Original:
    """One of DeepSeek's four repositories.

    Attributes:
        size: `1.3b` or `7b`.
        kind: `chat` or `base`.
    """

    size: str
    kind: str

    @property
    def name(self) -> str:
        """The name of its repository, without the owner."""
        return f"deepseek-vl-{self.size}-{self.kind}"

    @property
    def conversion(self) -> str:
        """The repository of its conversion, which transformers can run."""
        return f"deepseek-community/{self.name}"

    @property
    def alias(self) -> str:
        """The name of the conversion for `--model`."""
        return self.size if self.kind == "chat" else f"{self.size}-{self.kind}"


ORIGINALS = tuple(Original(size, kind) for size in ("1.3b", "7b") for kind in ("chat", "base"))


def find_original(model: str) -> Original | None:
    """Return the original that a typed name means (`deepseek-ai/deepseek-vl-7b-chat`), or None if there is none."""
    return next((one for one in ORIGINALS if model.lower() == f"{_OWNER}/{one.name}"), None)


def suggest_alias(name: str) -> str | None:
    """Return the alias of a repository named `deepseek-vl-7b-chat`, without its owner, or None if it is unknown."""
    return next((one.alias for one in ORIGINALS if name.lower() == one.name), None)


def refuse_original(original: Original) -> DsvlError:
    """Return the error that says what to load instead of one of DeepSeek's repositories."""
    return DsvlError(
        f"{_OWNER}/{original.name} is DeepSeek's original, in a form that transformers does not run",
        f"its conversion is {original.conversion}: --model {original.alias}",
    )


def refuse_folder(name: str, config: Mapping[str, Any], names: Iterable[str]) -> DsvlError | None:
    """Return the error that says what to load instead of a folder in the originals' form.

    None if it is not one, or if its size is unknown.

    Args:
        name: the folder as the user named it.
        config: its `config.json`.
        names: the known names of the folder and of the repository it is from.
    """
    if config.get("model_type") != MODEL_TYPE:
        return None
    words = {word for each in names for word in re.split(r"[-_\s/\\]+", each.lower())}
    if any("janus" in word for word in words) or any("gen_" in key for key in config):
        return None
    size, kinds = _find_size(config, words), words & {"chat", "base"}
    if size is None:
        return None
    found = [one for one in ORIGINALS if one.size == size and (len(kinds) != 1 or one.kind in kinds)]
    ways = " or ".join(f"{one.conversion} (--model {one.alias})" for one in found)
    return DsvlError(
        f"{name} is a DeepSeek-VL in its original form ({MODEL_TYPE!r}), which transformers does not run",
        f"DeepSeek's own is converted as {ways}",
    )


def _find_size(config: Mapping[str, Any], words: Iterable[str]) -> str | None:
    language, vision = config.get("language_config"), config.get("vision_config")
    layers = language.get("num_hidden_layers") if isinstance(language, dict) else None
    tower = vision.get("cls") if isinstance(vision, dict) else None
    named = {one.size for one in ORIGINALS} & set(words)
    return (
        (_SIZES_BY_LAYERS.get(layers) if isinstance(layers, int) else None)
        or (_SIZES_BY_TOWER.get(tower) if isinstance(tower, str) else None)
        or (named.pop() if len(named) == 1 else None)
    )
