"""First stage, eyes: the vision tower and the aligner learn to say in the visual code what each patch shows."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DeepseekVLForConditionalGeneration

from training.codes import (
    ATTRIBUTES,
    IGNORED,
    STARTS,
    code_vectors,
    draw_square,
    label_patches,
    one_hot,
    to_pixel_values,
)
from training.optim import Optimizers, schedule
from training.run_state import RunFolder
from training.scenes import Split, sample_scene, split_random

RATE, MATRIX_RATE = 2e-3, 4e-3
BATCH = 64
HORIZON = 2200  # steps that the rate's cosine spans: the stage ends before, and the second one goes on
_LOGIT_SCALE = 8.0  # the code's own scale is 1: this makes a right code a confident answer
_GROUND_WEIGHT = 0.15  # of patches that show only the ground, for attributes of shapes
_WEIGHTS = {"background": 0.4, "colour": 1.0, "kind": 1.5, "digit": 2.0, "order": 1.2, "slot": 0.8, "count": 0.4,
            "row": 0.05, "column": 0.05}  # fmt: skip


class Eyes(nn.Module):
    """Pixels to image tokens, as the whole model computes them: (n, 3, side, side) to (n, IMAGE_TOKENS, WIDTH)."""

    def __init__(self, model: DeepseekVLForConditionalGeneration) -> None:
        super().__init__()
        self.vision_model = model.model.vision_model
        self.aligner = model.model.aligner

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The aligner's output."""
        tokens: Tensor = self.aligner(self.vision_model(pixel_values).last_hidden_state)
        return tokens


def draw_batch(split: Split, seed: int, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures `start` to `start + size` of a split: pixel values, and labels (size, IMAGE_TOKENS, attributes)."""
    squares, labels = [], []
    for index in range(start, start + size):
        rng = split_random(split, seed, index)
        scene = sample_scene(rng, number=rng.random() < 0.4)
        squares.append(draw_square(scene, rng))
        labels.append(label_patches(scene))
    return to_pixel_values(np.stack(squares)), torch.from_numpy(np.stack(labels))


def code_loss(tokens: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of each attribute, and squared distance from the code; shares of patches right, by attribute.

    tokens: (n, IMAGE_TOKENS, WIDTH); labels: (n, IMAGE_TOKENS, attributes). Accuracy is over patches of shapes.
    """
    tokens = tokens.float()
    values = tokens @ code_vectors().T
    targets, known = one_hot(labels)
    shown = labels[..., list(ATTRIBUTES).index("order")] > 0
    patch_weight = torch.where(shown, 1.0, _GROUND_WEIGHT)
    patch_weight = patch_weight / patch_weight.sum()
    loss = tokens.new_zeros(())
    right: dict[str, float] = {}
    for i, (name, size) in enumerate(ATTRIBUTES.items()):
        part = values[..., STARTS[name] : STARTS[name] + size]
        label = labels[..., i]
        entropy = nn.functional.cross_entropy(
            (_LOGIT_SCALE * part).flatten(0, 1), label.flatten(), ignore_index=IGNORED, reduction="none"
        ).view_as(label)
        loss = loss + _WEIGHTS[name] * (entropy * patch_weight).sum()
        with torch.no_grad():
            asked = shown & (label != IGNORED)
            right[name] = float((part.argmax(-1) == label)[asked].float().mean())
    distance = ((values - targets).square() * known).sum(-1) + tokens.square().sum(-1) - values.square().sum(-1)
    return loss + 0.3 * (distance * patch_weight).sum(), right


def train_vision(model: DeepseekVLForConditionalGeneration, run: RunFolder, steps: int, seed: int) -> None:
    """Train vision tower and aligner for `steps`, or go on from the run's `vision.pt`; leaves the model trained."""
    eyes = Eyes(model)
    optimizers = Optimizers(eyes.named_parameters(), RATE, MATRIX_RATE)
    step = 0
    if (state := run.load("vision.pt")) is not None:
        eyes.load_state_dict(state["eyes"])
        optimizers.load_state_dict(state["optimizers"])
        step = state["step"]
    forward = torch.compile(eyes, dynamic=False)
    started, first = time.monotonic(), step
    mean: dict[str, float] = {}
    while step < steps and not run.stopped:
        run.wait_while_paused()
        pixel_values, labels = draw_batch("train", seed, step * BATCH, BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = forward(pixel_values)
        loss, right = code_loss(tokens, labels)
        loss.backward()
        norm = optimizers.step(schedule(step, HORIZON))
        step += 1
        for name, value in {"loss": loss.item(), "norm": norm, **right}.items():
            if value == value:  # a batch may lack digits, say: not a number then
                mean[name] = value if name not in mean else 0.95 * mean[name] + 0.05 * value
        if step % 50 == 0 or step == first + 5:
            pace = (time.monotonic() - started) / (step - first)
            print(f"vision {step}/{steps} {pace:.2f} s/step", *(f"{k} {v:.3f}" for k, v in mean.items()), flush=True)
        if step % 200 == 0 or step == steps or run.stopped:
            run.save("vision.pt", {"eyes": eyes.state_dict(), "optimizers": optimizers.state_dict(), "step": step})
