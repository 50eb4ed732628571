"""Dialogues as token sequences: several branches packed after one prefix, each masked from the others.

The prefix consists of the start of sequence, system prompt, complete turns, and pictures that start the next message.
A branch attends to the prefix and itself, and its positions continue from the end of the prefix, so each branch is
computed as if it were the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.architecture import IMAGE_TOKENS
from training.conversations import Dialogue, Part, Turn
from training.language import COUNT_WORDS, ORDINALS
from training.scenes import COLOURS, KINDS, SLOTS
from training.tokenizer import BOS, EOS, IMAGE, SYSTEM

_PLAIN_WEIGHT = 0.25  # of answer tokens common to all answers of a skill; informative ones have weight 1
_SKILL_WEIGHTS = {
    "describe": 2.0, "colour": 6.0, "kind": 4.0, "place": 6.0, "presence": 6.0, "count": 5.0, "which": 6.0,
    "recall": 3.0, "followup": 3.0, "what_at": 3.0, "absent": 4.0, "number": 3.0, "background": 0.7, "list": 1.2,
    "detail": 1.0, "talk": 0.5, "difference": 1.3, "describe_all": 1.2, "each": 2.0,
}  # fmt: skip
_TELLING = {*COLOURS, *KINDS, *(word for slot in SLOTS for word in slot.split()), *COUNT_WORDS, *ORDINALS, "yes", "no",
            "both", "neither", "nothing", "there", *"0123456789"}  # fmt: skip


Row = tuple[dict[str, NDArray[np.generic]], list[int]]  # columns, and the scenes of the pictures in them


@dataclass(frozen=True)
class Batch:
    """Packed sequences, (n, length). `weights` is 0 outside answers; `branch` is 0 in the prefix and -1 in padding.

    `pictures`: for each picture in order, its row in the batch and the index of its scene there; `image_at`: a mask of
    the image tokens.
    """

    input_ids: Tensor
    positions: Tensor
    weights: Tensor
    branch: Tensor
    image_at: Tensor
    pictures: list[tuple[int, int]]

    def mask(self) -> Tensor:
        """Return the attention mask, bool (n, 1, length, length)."""
        length = self.branch.size(1)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        own, other = self.branch.unsqueeze(2), self.branch.unsqueeze(1)
        return (causal & ((other == 0) | (own == other))).unsqueeze(1)


class Packer:
    """Packs dialogues into rows of a batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encode = tokenizer.backend_tokenizer.encode
        vocabulary = tokenizer.get_vocab()
        self._pad, self._image = vocabulary[EOS], vocabulary[IMAGE]
        strip = (str(tokenizer.decode([i])).strip().lower() for i in range(len(tokenizer)))
        self._telling = np.array([word in _TELLING for word in strip])
        self._telling[[self._image, self._pad]] = False

    def _ids(self, text: str) -> list[int]:
        return list(self._encode(text, add_special_tokens=False).ids)

    def _text(self, parts: tuple[Part, ...]) -> str:
        return "".join(part if isinstance(part, str) else IMAGE for part in parts)

    def _spread(self, text: str) -> list[int]:
        ids: list[int] = []
        for token in self._ids(text):
            ids += [token] * (IMAGE_TOKENS if token == self._image else 1)
        return ids

    def _answer(self, turn: Turn) -> tuple[list[int], list[float]]:
        ids = self._ids(f" {turn.answer}{EOS}")
        weight = _SKILL_WEIGHTS.get(turn.skill, 1.0)
        return ids, [weight * (1.0 if self._telling[i] else _PLAIN_WEIGHT) for i in ids]

    def _turns(self, turns: tuple[Turn, ...], opened: bool) -> tuple[list[int], list[float], list[int]]:
        """Return tokens, weights and pictures of complete turns; `opened`: the first message has already started."""
        ids: list[int] = []
        weights: list[float] = []
        pictures: list[int] = []
        for index, turn in enumerate(turns):
            lead = "" if opened and index == 0 else "User: "
            asked = self._spread(f"{lead}{self._text(turn.parts)}\n\nAssistant:")
            answer, answer_weights = self._answer(turn)
            ids += asked + answer
            weights += [0.0] * len(asked) + answer_weights
            pictures += [part for part in turn.parts if isinstance(part, int)]
        return ids, weights, pictures

    def row(self, dialogue: Dialogue, length: int) -> Row | None:
        """Return a row of `length` tokens with the scenes of its pictures, or None if not even one branch fits."""
        system = SYSTEM if dialogue.system is None else dialogue.system
        ids = self._ids(f"{BOS}{system}\n\n" if system else BOS)
        weights = [0.0] * len(ids)
        turn_ids, turn_weights, pictures = self._turns(dialogue.trunk, False)
        head = self._spread("User: " + self._text(dialogue.head)) if dialogue.head else []
        ids += turn_ids + head
        weights += turn_weights + [0.0] * len(head)
        pictures += [part for part in dialogue.head if isinstance(part, int)]
        prefix = len(ids)
        positions, branch = list(range(prefix)), [0] * prefix
        for number, turns in enumerate(dialogue.branches, start=1):
            branch_ids, branch_weights, branch_pictures = self._turns(turns, bool(dialogue.head))
            if len(ids) + len(branch_ids) > length:
                break
            ids += branch_ids
            weights += branch_weights
            pictures += branch_pictures
            positions += range(prefix, prefix + len(branch_ids))
            branch += [number] * len(branch_ids)
        if len(ids) == prefix:
            return None
        padding = length - len(ids)
        columns: dict[str, NDArray[np.generic]] = {
            "input_ids": np.array(ids + [self._pad] * padding),
            "positions": np.array(positions + [0] * padding),
            "weights": np.array(weights + [0.0] * padding, np.float32),
            "branch": np.array(branch + [-1] * padding),
        }
        return columns, pictures

    def batch(self, rows: list[Row]) -> Batch:
        """Stack rows of equal length."""
        columns = {name: torch.from_numpy(np.stack([row[name] for row, _ in rows])) for name in rows[0][0]}
        pictures = [(index, picture) for index, (_, row) in enumerate(rows) for picture in row]
        return Batch(**columns, image_at=columns["input_ids"] == self._image, pictures=pictures)
