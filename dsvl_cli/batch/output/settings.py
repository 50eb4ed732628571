"""The settings of an output, stored beside it so that rows made with different settings are not mixed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dsvl_cli.batch.output.disk import explained
from dsvl_cli.engine.constraints import Constraint, from_json
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.storage.files import new_file, open_regular
from dsvl_cli.errors import DsvlError

_LONGEST = 40
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a row depends on besides its picture.

    Attributes:
        model: the model as the user named it.
        fingerprint: fingerprint of the model's files.
        prompts: the questions by name.
        system: the system prompt; None for the model's default.
        sampling: the fields of `SamplingParams`.
        loading: the fields of `LoadOptions` that affect answers.
        column: the picture column of Parquet tables, if the user named one.
        format: the output format.
        base: the folder that relative paths in the rows refer to, as seen from the folder of the output; None in files
            of older versions.
        sidecar: the extension of text files.
        prefix, suffix, separator: what is put around the answers in text files.
        constraints: what form the answers to some questions must have, as JSON.
        least_probability: an answer from a list is suspect below it.
        samples: how many answers to give to each question.
        seed_drawn: whether the seed was chosen at random; later runs then reuse it.
    """

    model: str
    fingerprint: str
    prompts: dict[str, str]
    system: str | None
    sampling: dict[str, Any]
    loading: dict[str, Any]
    column: str | None = None
    format: str | None = None
    base: str | None = None
    seed_drawn: bool = False
    sidecar: str = ".txt"
    prefix: str = ""
    suffix: str = ""
    separator: str = ""
    constraints: dict[str, Any] = field(default_factory=dict)
    least_probability: float = 0.0
    samples: int = 1

    def write(self, path: Path) -> None:
        """Write the settings to a file.

        Raises:
            DsvlError: the file cannot be written.
        """
        with explained(path), new_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2).encode() + b"\n")

    def dress(self, text: str) -> str:
        """Put what was asked for around an answer."""
        return self.separator.join(filter(None, (self.prefix, text, self.suffix)))

    @classmethod
    def read(cls, path: Path) -> Settings | None:
        """Read a file written by `write`; return None if it does not exist.

        Raises:
            DsvlError: the file is unreadable or damaged.
        """
        try:
            with open_regular(path) as file:
                return cls(**json.loads(file.read(_MAX_BYTES)))._checked()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as exc:
            raise DsvlError(
                f"{path}: cannot be read; it holds the settings of the rows beside it",
                "restore the file, or start over with --overwrite",
            ) from exc

    def _checked(self) -> Settings:
        tables = (self.prompts, self.sampling, self.loading, self.constraints, *self.constraints.values())
        texts = (self.model, self.fingerprint, *self.prompts, *self.prompts.values())
        if not all(isinstance(table, dict) for table in tables) or not all(isinstance(text, str) for text in texts):
            raise ValueError("not the settings of a batch")
        self.read_constraints()
        return self

    def read_constraints(self) -> dict[str, Constraint]:
        """Return what form the answers must have, by question."""
        return {name: from_json(value) for name, value in self.constraints.items()}

    def read_sampling(self) -> SamplingParams:
        """Return how the tokens of answers are chosen."""
        return SamplingParams(**{**self.sampling, "stop": tuple(self.sampling["stop"])})

    def with_seed_of(self, stored: Settings) -> Settings:
        """Return these settings with the stored random seed, if the seed of both was chosen at random."""
        if not (self.seed_drawn and stored.seed_drawn):
            return self
        return replace(self, sampling={**self.sampling, "seed": stored.sampling.get("seed")})

    def differences(self, stored: Settings) -> list[str]:
        """Describe each difference from `stored`, such as `model tiny (was 1.3b)`."""
        # Through JSON, which turns tuples into lists.
        mine, theirs = (_flatten(json.loads(json.dumps(asdict(each)))) for each in (self, stored))
        found = [
            f"{name} {_show(mine.get(name))} (was {_show(theirs.get(name))})"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name) and name != "fingerprint"
        ]
        if not found and mine["fingerprint"] != theirs["fingerprint"]:
            found = [f"the files of model {self.model} changed"]
        return found


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    del fields["base"]
    if fields.pop("seed_drawn"):
        fields["sampling"]["seed"] = None  # nobody has asked for it
    prompts = fields.pop("prompts")
    named = {"prompt" if name == "text" else f"question {name}": prompt for name, prompt in prompts.items()}
    return {"model": fields["model"], **named, **fields.pop("sampling"), **fields.pop("loading"), **fields}


def _show(value: object) -> str:
    text = "none" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
