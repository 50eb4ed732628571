"""First stage, vision: the vision tower and the aligner are trained to output the visual code of each patch."""

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
HORIZON = 2200  # steps of the cosine schedule: the stage ends before, followed by the joint one
_LOGIT_SCALE = 8.0  # the code has scale 1: this turns a correct code into a confident prediction
_GROUND_WEIGHT = 0.15  # of patches that only show the background, for attributes of shapes
_WEIGHTS = {"background": 0.4, "colour": 1.0, "kind": 1.5, "digit": 2.0, "order": 1.2, "slot": 0.8, "count": 0.4,
            "row": 0.05, "column": 0.05}  # fmt: skip


class Eyes(nn.Module):
    """The vision part of the model: pixels (n, 3, side, side) to image tokens (n, IMAGE_TOKENS, WIDTH)."""

    def __init__(self, model: DeepseekVLForConditionalGeneration) -> None:
        super().__init__()
        self.vision_model = model.model.vision_model
        self.aligner = model.model.aligner

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the aligner's output."""
        tokens: Tensor = self.aligner(self.vision_model(pixel_values).last_hidden_state)
        return tokens


def draw_batch(split: Split, seed: int, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw pictures `start` to `start + size` of a split; return pixel values and (size, IMAGE_TOKENS, attributes)."""
    squares, labels = [], []
    for index in range(start, start + size):
        rng = split_random(split, seed, index)
        scene = sample_scene(rng, number=rng.random() < 0.4)
        squares.append(draw_square(scene, rng))
        labels.append(label_patches(scene))
    return to_pixel_values(np.stack(squares)), torch.from_numpy(np.stack(labels))


def code_loss(tokens: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the loss, cross-entropy of each attribute plus squared distance from the code, and the accuracies.

    tokens: (n, IMAGE_TOKENS, WIDTH); labels: (n, IMAGE_TOKENS, attributes). Accuracies are over patches of shapes.
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
    """Train the vision tower and aligner in place up to `steps`, resuming from the run's `vision.pt`."""
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
            if value == value:  # NaN if, for example, a batch has no digits
                mean[name] = value if name not in mean else 0.95 * mean[name] + 0.05 * value
        if step % 50 == 0 or step == first + 5:
            pace = (time.monotonic() - started) / (step - first)
            print(f"vision {step}/{steps} {pace:.2f} s/step", *(f"{k} {v:.3f}" for k, v in mean.items()), flush=True)
        if step % 200 == 0 or step == steps or run.stopped:
            run.save("vision.pt", {"eyes": eyes.state_dict(), "optimizers": optimizers.state_dict(), "step": step})
