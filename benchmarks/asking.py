"""Asks one question about one picture with dsvl in several formats, with transformers and other peers in turn."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.formats import llama_kind, openvino_kind
from benchmarks.setup import Figures, Setup, median_of, step_seconds

DOCUMENTED = "transformers bf16"  # as its documentation uses it; the goals are beside this one


@dataclass(slots=True)
class Asked:
    """Every run of every candidate, named as `dsvl int8`, `transformers bf16`, `llama.cpp q4_0`.

    Attributes:
        runs: as reported by the workers.
        picture_seconds: time to encode the picture, by start of dsvl.
        load_seconds: time to load, by start.
    """

    runs: dict[str, list[Figures]] = field(default_factory=dict)
    picture_seconds: list[float] = field(default_factory=list)
    load_seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, found: Figures) -> None:
        """Record what a worker reported."""
        self.runs.setdefault(name, []).extend(found["runs"])
        self.load_seconds.setdefault(name, []).append(found["load_seconds"])
        last = found["runs"][-1]
        print(f"{name:24} first {last['first_seconds']:6.2f} s, all {last['seconds']:6.2f} s", file=sys.stderr)

    @property
    def prompt_tokens(self) -> int:
        """The length of the prompt, the same for all candidates."""
        return int(next(iter(self.runs.values()))[0]["prompt_tokens"])

    @property
    def transformers(self) -> list[str]:
        """The names of transformers in its dtypes."""
        return [name for name in self.runs if name.startswith("transformers")]

    def first(self, name: str) -> float | None:
        """Return the median seconds until the first token, or None if the candidate did not run."""
        return median_of(self.runs[name], "first_seconds") if name in self.runs else None

    def whole(self, name: str) -> float | None:
        """Return the median seconds until the last token."""
        return median_of(self.runs[name], "seconds") if name in self.runs else None

    def step(self, name: str) -> float | None:
        """Return the median milliseconds of a step."""
        if name not in self.runs:
            return None
        return 1e3 * median_of(({"step": step_seconds(run)} for run in self.runs[name]), "step")

    def picture(self) -> float:
        """Return the median seconds of encoding the picture."""
        return median_of(({"seconds": seconds} for seconds in self.picture_seconds), "seconds")

    def raw(self) -> dict[str, Any]:
        """Return everything for the line of JSON."""
        return {"runs": self.runs, "picture_seconds": self.picture_seconds, "load_seconds": self.load_seconds}


def ask_all(setup: Setup, new_tokens: int) -> Asked:
    """Start every candidate once per round, one after the other."""
    peers = [
        ("llama.cpp", setup.llama, list(dict.fromkeys(llama_kind(name) for name in setup.formats))),
        ("OpenVINO", setup.openvino, list(dict.fromkeys(filter(None, map(openvino_kind, setup.formats))))),
    ]
    for _, peer, kinds in peers:
        if peer is not None:
            peer.make(kinds)
    asked = Asked()
    for _ in range(setup.rounds):
        for dtype in setup.transformers:
            asked.add(f"transformers {dtype}", setup.baseline("ask", dtype, "--new-tokens", str(new_tokens)))
        for name in setup.formats:
            found = setup.ours("ask", name, "--new-tokens", str(new_tokens))
            asked.add(f"dsvl {name}", found)
            if found["runs"][0]["prompt_tokens"] != asked.prompt_tokens:
                raise SystemExit("dsvl and transformers make prompts of different lengths")
            asked.picture_seconds.append(found["picture_seconds"])
        for name, peer, kinds in peers:
            for kind in kinds if peer is not None else ():
                assert peer is not None
                asked.add(f"{name} {kind}", peer.ask(kind, asked.prompt_tokens, new_tokens, setup.repeats))
    return asked
