"""What the rows of an output were made with: kept beside it, so that no other rows come among them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dsvl_cli.batch.output.disk import explained
from dsvl_cli.engine.storage.files import new_file
from dsvl_cli.errors import DsvlError

_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Settings:
    """What a row depends on besides its picture.

    Attributes:
        model: what the user calls the model.
        fingerprint: of its files.
        prompts: the questions by name.
        system: the system text; None for the model's own.
        sampling: the fields of `SamplingParams`.
        loading: those fields of `LoadOptions` that change what the model says.
        column: of a table, the one with the pictures, where it was named.
        format: what the output is.
        seed_drawn: whether the seed was drawn by chance, and a later run takes the same.
    """

    model: str
    fingerprint: str
    prompts: dict[str, str]
    system: str | None
    sampling: dict[str, Any]
    loading: dict[str, Any]
    column: str | None = None
    format: str | None = None
    seed_drawn: bool = False

    def write(self, path: Path) -> None:
        """Keep them in a file.

        Raises:
            DsvlError: it cannot be written.
        """
        with explained(path), new_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Settings | None:
        """Read what `write` kept; None where there is no file.

        Raises:
            DsvlError: it is damaged.
        """
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as exc:
            raise DsvlError(
                f"{path}: cannot be read: it says what the rows beside it were made with",
                "bring it back, or begin anew with --overwrite",
            ) from exc

    def with_seed_of(self, stored: Settings) -> Settings:
        """Take over a seed that was drawn before, where this one was drawn, too."""
        if not (self.seed_drawn and stored.seed_drawn):
            return self
        return replace(self, sampling={**self.sampling, "seed": stored.sampling["seed"]})

    def differences(self, stored: Settings) -> list[str]:
        """Say what is another than in `stored`: `model tiny (was 1.3b)`."""
        # As JSON has them, where a tuple is a list.
        mine, theirs = (_flatten(json.loads(json.dumps(asdict(each)))) for each in (self, stored))
        found = [
            f"{name} {_show(mine.get(name))} (was {_show(theirs.get(name))})"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name) and name != "fingerprint"
        ]
        if not found and mine["fingerprint"] != theirs["fingerprint"]:
            found = [f"other files of the model {self.model}"]
        return found


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    del fields["seed_drawn"]
    prompts = fields.pop("prompts")
    named = {"prompt" if name == "text" else f"question {name}": prompt for name, prompt in prompts.items()}
    return {"model": fields["model"], **named, **fields.pop("sampling"), **fields.pop("loading"), **fields}


def _show(value: object) -> str:
    text = "none" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
