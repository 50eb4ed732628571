"""The visual code: the target of the aligner's output for each patch, a sum of fixed orthonormal vectors.

Each value of each attribute (`ATTRIBUTES`) has a vector. The vision tower is trained to output the sum of the vectors
that apply to a patch; in parallel the language model is trained on sums made from the ground truth, without the cost
of the vision tower, and afterwards the two fit together.
"""

from __future__ import annotations

import random
from functools import cache
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.architecture import GRID, IMAGE_TOKENS, PICTURE_SIDE, WIDTH
from training.scenes import COLOURS, KINDS, PADDING_GREY, SLOTS, Scene, draw_owners, draw_scene

# Value 0 means "none", for attributes of shapes and digits in a patch that only shows the background.
ATTRIBUTES: dict[str, int] = {
    "background": len(COLOURS), "colour": 1 + len(COLOURS), "kind": 2 + len(KINDS), "digit": 11, "order": 4,
    "slot": 1 + len(SLOTS), "count": 3, "row": GRID, "column": GRID,
}  # fmt: skip
STARTS = dict(zip(ATTRIBUTES, np.cumsum([0, *ATTRIBUTES.values()])[:-1].tolist(), strict=True))
VALUES = sum(ATTRIBUTES.values())
IGNORED = -100
_COLOUR_INDEX = {name: i for i, name in enumerate(COLOURS)}
_OWNER_SIDE = 64  # pixels of the map from which patches are assigned to shapes
_CLEAR, _TRACE = 0.12, 0.03  # coverage of a patch above which it belongs to a shape, and below which it does not


@cache
def code_vectors() -> Tensor:
    """Return the orthonormal vectors of all values: (VALUES, WIDTH), float32, from a constant seed."""
    noise = torch.randn(WIDTH, VALUES, generator=torch.Generator().manual_seed(20))
    vectors: Tensor = torch.linalg.qr(noise).Q.T.contiguous()
    return vectors


def cover(scene: Scene) -> NDArray[np.float32]:
    """Return the fraction of each patch covered by each shape or digit: (IMAGE_TOKENS, 3)."""
    owners = np.asarray(draw_owners(scene, _OWNER_SIDE))
    square = np.zeros((_OWNER_SIDE, _OWNER_SIDE), np.uint8)
    top, left = (_OWNER_SIDE - owners.shape[0]) // 2, (_OWNER_SIDE - owners.shape[1]) // 2
    square[top : top + owners.shape[0], left : left + owners.shape[1]] = owners
    cell = _OWNER_SIDE // GRID
    cells = square.reshape(GRID, cell, GRID, cell).swapaxes(1, 2).reshape(IMAGE_TOKENS, cell * cell)
    return np.stack([(cells == owner).mean(1, dtype=np.float32) for owner in (1, 2, 3)], axis=1)


def label_patches(scene: Scene) -> NDArray[np.int64]:
    """Return the value of each attribute in each patch, or IGNORED if unclear: (IMAGE_TOKENS, len(ATTRIBUTES))."""
    labels = np.zeros((IMAGE_TOKENS, len(ATTRIBUTES)), np.int64)
    column = {name: i for i, name in enumerate(ATTRIBUTES)}
    things = len(scene.shapes) or len(scene.number.text if scene.number else "")
    labels[:, column["background"]] = _COLOUR_INDEX[scene.background]
    labels[:, column["count"]] = things - 1
    labels[:, column["row"]] = np.arange(IMAGE_TOKENS) // GRID
    labels[:, column["column"]] = np.arange(IMAGE_TOKENS) % GRID
    shares = cover(scene)
    most, share = shares.argmax(1), shares.max(1)
    local = [column[name] for name in ("colour", "kind", "digit", "order", "slot")]
    for index in range(things):
        own = np.flatnonzero((most == index) & (share >= _CLEAR))
        if scene.number is not None:
            values = [
                1 + _COLOUR_INDEX[scene.number.colour],
                1 + len(KINDS),
                1 + int(scene.number.text[index]),
                1 + index,
                0,
            ]
        else:
            shape = scene.shapes[index]
            slot = IGNORED if shape.slot is None else 1 + SLOTS.index(shape.slot)
            values = [1 + _COLOUR_INDEX[shape.colour], 1 + KINDS.index(shape.kind), 0, 1 + index, slot]
        labels[own[:, None], local] = values
    unclear = np.flatnonzero((share > _TRACE) & (share < _CLEAR))
    labels[unclear[:, None], local] = IGNORED
    return labels


def draw_square(scene: Scene, rng: random.Random) -> NDArray[np.uint8]:
    """Return the picture as the processor outputs it, before scaling: drawn in a random size, resized and padded."""
    roll = rng.random()
    side = PICTURE_SIDE if roll < 0.25 else 2 * PICTURE_SIDE if roll < 0.6 else rng.randint(56, 480)
    image = draw_scene(scene, side)
    if rng.random() < 0.06:
        stream = BytesIO()
        image.save(stream, "JPEG", quality=rng.randint(40, 92))
        image = Image.open(stream).convert("RGB")
    if side != PICTURE_SIDE:
        size = (max(1, round(image.width * PICTURE_SIDE / side)), max(1, round(image.height * PICTURE_SIDE / side)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    square = np.full((PICTURE_SIDE, PICTURE_SIDE, 3), PADDING_GREY, np.uint8)
    top, left = (PICTURE_SIDE - image.height) // 2, (PICTURE_SIDE - image.width) // 2
    square[top : top + image.height, left : left + image.width] = np.asarray(image)
    if rng.random() < 0.1:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 6), square.shape)
        square = np.clip(square + noise, 0, 255).astype(np.uint8)
    return square


def to_pixel_values(squares: NDArray[np.uint8]) -> Tensor:
    """Convert (n, side, side, 3) bytes to the model's input: (n, 3, side, side), -1 to 1."""
    return torch.from_numpy(squares).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def one_hot(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Convert labels (..., attributes) to concatenated one-hot values (..., VALUES) and a mask of the known ones."""
    targets = torch.zeros(*labels.shape[:-1], VALUES)
    known = torch.ones_like(targets)
    for i, (name, size) in enumerate(ATTRIBUTES.items()):
        label = labels[..., i]
        part = slice(STARTS[name], STARTS[name] + size)
        targets[..., part] = torch.nn.functional.one_hot(label.clamp_min(0), size).float()
        known[..., part] = (label != IGNORED).unsqueeze(-1).float()
    return targets * known, known
