"""Tries hostile checkpoints in a process that they may end: `python -m tests.engine.checkpoint.hostile_child FOLDER`.

Reads numbers of variants, one a line, from stdin; writes a JSON line when a variant begins and when it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.engine.checkpoint.hostile import list_variants, remove

TOKENS = 3


def main(place: Path) -> None:
    """Try variants until stdin ends."""
    from dsvl_cli.engine.conversation import Conversation, Message
    from dsvl_cli.engine.model import load_model
    from dsvl_cli.engine.options import LoadOptions, SamplingParams
    from dsvl_cli.engine.pictures.images import read_picture
    from dsvl_cli.errors import DsvlError

    picture = read_picture("examples/red-circle.png")
    variants = list_variants()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing else writes to it
    print(json.dumps({"ready": len(variants)}), file=out)
    for line in sys.stdin:
        variant = variants[int(line)]
        folder = variant.make(place / line.strip())
        _forget_peak()
        before = _memory("VmRSS")
        started = _cpu_seconds()
        ending: dict[str, Any] = {"number": int(line)}
        try:
            options: dict[str, Any] = {"quantization": variant.quantization}
            model = load_model(LoadOptions(model=str(folder), offline=True, device="cpu", threads=1, **options))
            talk = Conversation([Message("user", (picture, "What is in this image?"))])
            text = "".join(chunk.text for chunk in model.stream(talk, SamplingParams(max_new_tokens=TOKENS)))
            ending |= {"kind": "answered", "text": text}
            del model
        except DsvlError as exc:
            ending |= {"kind": "refused", "text": exc.message}
        except BaseException as exc:
            ending |= {
                "kind": "bug",
                "text": f"{type(exc).__name__}: {exc}"[:500],
                "trace": traceback.format_exc()[-1500:],
            }
        ending |= {"seconds": _cpu_seconds() - started, "growth": _memory("VmHWM") - before}
        print(json.dumps(ending), file=out)
        remove(folder)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its children, which other programs do not lengthen."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _memory(kind: str) -> int:
    """Return the memory in use, or the most since `_forget_peak`, in bytes; 0 if it is unknown."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith(kind)), 0)
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
