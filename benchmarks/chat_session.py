"""`python -m benchmarks.chat_session`: complete chats in tmux with the embedded model, over random pairs of pictures.

For each pair: drop both pictures as paths, ask for their difference, then what the first one shows; undo that and ask
something else; cut an answer at three tokens and continue it. Finally leave the chat and resume it with --continue.
Prints the share of correct answers and saves the captured screens for review. Needs tmux.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from training.conversations import ask_which, difference, sample_pair
from training.language import description
from training.scenes import Scene, draw_scene, split_random

PROMPT = ">"
LOADING = r"^(waiting for \S+ to load; Ctrl-C stops waiting |tiny is a demonstration: .* photographs )*"
SEED = 31


class Window:
    """A tmux window running the chat."""

    def __init__(self, width: int, height: int, environment: dict[str, str], *arguments: str) -> None:
        self._socket = f"dsvl-{os.getpid()}-{id(self)}"
        variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        command = " ".join([*variables, sys.executable, "-m", "dsvl_cli", "chat", *arguments])
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("new-session", "-d", "-s", "chat", *size, f"{command}; sleep 2")
        self._tmux("set-option", "history-limit", "50000")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def lines(self) -> list[str]:
        """The non-empty lines of the screen and its history."""
        text = self._tmux("capture-pane", "-p", "-t", "chat", "-S", "-")
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def wait_for_prompt(self, seconds: float = 120.0) -> list[str]:
        """Wait until the input line is empty and the screen has not changed for a while."""
        before: list[str] = []
        calm = 0
        deadline = time.monotonic() + seconds
        while calm < 4 and time.monotonic() < deadline:
            time.sleep(0.25)
            lines = self.lines()
            at_prompt = any(line == PROMPT for line in lines[-2:])
            calm = calm + 1 if at_prompt and lines == before else 0
            before = lines
        return before

    def say(self, line: str) -> str:
        """Type a line, and return the output up to the next prompt, joined into one line."""
        self._tmux("send-keys", "-t", "chat", "-l", line)
        time.sleep(0.2)
        known = len([shown for shown in self.lines() if shown.startswith(f"{PROMPT} ")])
        self._tmux("send-keys", "-t", "chat", "Enter")
        lines = self.wait_for_prompt()
        starts = [index for index, shown in enumerate(lines) if shown.startswith(f"{PROMPT} ")]
        first = starts[known - 1] + 1
        # A long line of ours may be wrapped; what follows it is the answer.
        shown_line = lines[first - 1].removeprefix(f"{PROMPT} ")
        while not line.endswith(shown_line[-5:]) and first < len(lines):
            shown_line = lines[first]
            first += 1
        last = max(index for index, shown in enumerate(lines) if shown == PROMPT)
        said = " ".join(shown.strip() for shown in lines[first:last])
        # The first message comes while the model is loading: what the chat says about that is no answer.
        return re.sub(LOADING, "", said)

    def leave(self) -> None:
        """Leave the chat and close the window."""
        self._tmux("send-keys", "-t", "chat", "/exit", "Enter")
        time.sleep(1)
        self._tmux("kill-server")


def play_pair(window: Window, first: Scene, second: Scene, index: int, folder: Path) -> dict[str, tuple[str, str]]:
    """Talk about one pair, and return the given and the right answer by kind of question."""
    paths = []
    for name, scene in (("first", first), ("second", second)):
        path = folder / f"{index}-{name}.png"
        draw_scene(scene, 256).save(path)
        paths.append(str(path))
    which = ask_which((first, second), split_random("evaluation", SEED, 1000 + index))
    window.say("/new")
    window.say(" ".join(paths))
    told = {}
    told["difference"] = (window.say("What is the difference between the two pictures?"), difference(first, second))
    told["follow-up"] = (window.say("What was in the first picture?"), description(first))
    window.say("/undo")
    told["after undo"] = (window.say(which.question), which.answer)
    window.say("/set max_new_tokens 3")
    begun = window.say("Describe the second picture.")
    window.say("/set max_new_tokens 64")
    rest = window.say("/continue")
    cut = begun.split("(cut)")[0]
    told["continued"] = (f"{cut.strip()} {rest}", description(second))
    return told


def is_right(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one, ignoring line breaks and the seam of a continued answer."""
    return "".join(answer.split()) == "".join(expected.split())


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--width", type=int, default=80)
    parser.add_argument("--screens", type=Path, default=Path("chat-screens"))
    args = parser.parse_args()
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"DSVL_DATA_DIR": str(folder / "data"), "PYTHONPATH": os.getcwd()}
        arguments = ("--model", "tiny", "--offline", "--dtype", "float32")
        start = time.perf_counter()
        window = Window(args.width, 40, environment, *arguments)
        while not any(line == PROMPT for line in window.lines()):
            time.sleep(0.02)
        prompt_seconds = time.perf_counter() - start
        last: tuple[Scene, Scene] | None = None
        for index in range(args.pairs):
            last = sample_pair(split_random("evaluation", SEED, index))
            for kind, (answer, expected) in play_pair(window, *last, index, folder).items():
                asked[kind] += 1
                right[kind] += is_right(answer, expected)
                mark = "right" if is_right(answer, expected) else "WRONG"
                print(f"{index:3} {kind:12} {mark} {answer!r}" + ("" if mark == "right" else f", not {expected!r}"))
        args.screens.write_text("\n".join(window.lines()) + "\n", encoding="utf-8")
        window.leave()
        window = Window(args.width, 40, environment, "--continue", *arguments)
        window.wait_for_prompt()
        answer = window.say("What was in the first picture?")
        assert last is not None
        asked["--continue"] += 1
        right["--continue"] += is_right(answer, description(last[0]))
        print(f"    --continue   {answer!r}")
        window.leave()
    print(f"\nthe prompt was there after {prompt_seconds:.2f} s, the shell of tmux included\n")
    for kind, count in asked.items():
        print(f"{kind:14} {right[kind]:3} of {count}")
    print(json.dumps({"benchmark": "chat_session", "right": right, "asked": asked, "prompt_seconds": prompt_seconds}))


if __name__ == "__main__":
    main()
