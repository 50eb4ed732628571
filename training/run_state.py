"""Saving and resuming the state of a training stage, and stopping or pausing it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch


@dataclass
class RunFolder:
    """The folder of a training run. A file `PAUSE` in it pauses every stage until it is deleted."""

    path: Path
    stopped: bool = False

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a state file atomically, by a rename."""
        draft = self.path / f"{name}.draft"
        torch.save(state, draft)
        os.replace(draft, self.path / name)

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a state file, or return None if it does not exist."""
        file = self.path / name
        if not file.exists():
            return None
        state: dict[str, Any] = torch.load(file, weights_only=True)
        return state

    def wait_while_paused(self) -> None:
        """Sleep while the file `PAUSE` exists."""
        while (self.path / "PAUSE").exists() and not self.stopped:
            time.sleep(2)
