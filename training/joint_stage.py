"""Second stage: vision and language trained together, from pixels to answers, in data-parallel processes.

In each step a process samples some conversations and additional single pictures: the conversations train the whole
model on the answers, and all pictures continue to train the vision part on the visual code.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import DeepseekVLForConditionalGeneration, PreTrainedTokenizerFast

from training.codes import draw_square, label_patches, to_pixel_values
from training.conversations import sample_dialogue, sample_long_dialogue
from training.optim import Optimizers, schedule
from training.run_state import RunFolder
from training.scenes import Scene, sample_scene, split_random
from training.sequences import Batch, Packer, Row
from training.text_stage import Mouth, answer_loss, embed
from training.vision_stage import Eyes, code_loss

PICTURES = 32  # per process and step
ROWS = {384: 7, 640: 4, 960: 3}  # tokens per row: rows per batch
_SEED_SHIFT = 1 << 20  # separates the samples of this stage from those of the first
EYES_RATES, WORDS_RATES = (1.5e-3, 3.5e-3), (1e-3, 5e-3)  # AdamW's, Muon's


def row_length(step: int) -> int:
    """Return the row length of a step: for one picture, for two or three, or for a long conversation."""
    return (384, 640, 384, 384, 640, 384, 384, 960)[step % 8]


def sample_conversations(packer: Packer, seed: int, sample: int, length: int) -> tuple[Batch, list[Scene]]:
    """Return packed rows, and the scenes of their pictures, at most PICTURES."""
    rows: list[Row] = []
    scenes: list[Scene] = []
    attempt = 0
    while len(rows) < ROWS[length]:
        rng = split_random("train", seed + _SEED_SHIFT, sample * 64 + attempt)
        attempt += 1
        if length == 960:
            dialogue = sample_long_dialogue(rng, branches=24, drill=True)
        else:
            several = length == 640
            dialogue = sample_dialogue(rng, branches=24 if several else 18, several=1.0 if several else 0.0, drill=True)
        row = packer.row(dialogue, length)
        if row is not None and len(scenes) + len(row[1]) <= PICTURES:
            rows.append(row)
            scenes += [dialogue.scenes[picture] for picture in row[1]]
    return packer.batch(rows), scenes


def draw_pictures(scenes: list[Scene], seed: int, sample: int, numbers: float) -> tuple[Tensor, Tensor]:
    """Draw the scenes and additional ones, PICTURES in total; return pixel values and labels of the patches."""
    squares, labels = [], []
    for index in range(PICTURES):
        rng = split_random("train", seed + 2 * _SEED_SHIFT, sample * 64 + index)
        scene = scenes[index] if index < len(scenes) else sample_scene(rng, number=rng.random() < numbers)
        squares.append(draw_square(scene, rng))
        labels.append(label_patches(scene))
    return to_pixel_values(np.stack(squares)), torch.from_numpy(np.stack(labels))


def _average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= world
    start = 0
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()


def train_joint(
    model: DeepseekVLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    run: RunFolder,
    steps: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Train the whole model up to `steps`, resuming from the run's `joint.pt`, as process `rank` of `world`."""
    if world > 1:
        meeting = run.path / "meeting"
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    eyes, mouth, packer = Eyes(model), Mouth(model), Packer(tokenizer)
    eyes_optimizers = Optimizers(eyes.named_parameters(), *EYES_RATES)
    words_optimizers = Optimizers(mouth.named_parameters(), *WORDS_RATES)
    step = 0
    if (state := run.load("joint.pt")) is not None:
        model.load_state_dict(state["model"])
        eyes_optimizers.load_state_dict(state["eyes_optimizers"])
        words_optimizers.load_state_dict(state["words_optimizers"])
        step = state["step"]
    see, say = torch.compile(eyes, dynamic=False), torch.compile(mouth, dynamic=False)
    started, first = time.monotonic(), step
    mean: dict[str, float] = {}
    while step < steps:
        run.wait_while_paused()
        length = row_length(step)
        sample = step * world + rank
        batch, scenes = sample_conversations(packer, seed, sample, length)
        pixel_values, labels = draw_pictures(scenes, seed, sample, numbers=0.5)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = see(pixel_values)
            image_tokens = tokens[: len(scenes)]
            hidden = say(embed(mouth, batch, image_tokens), batch.positions, batch.mask())
            loss, right = answer_loss(mouth, hidden, batch)
        seen, shares = code_loss(tokens, labels)
        (loss + seen).backward()
        # All processes must stop at the same step, so the request to stop is reduced with the gradients.
        stop = torch.tensor(float(run.stopped))
        if world > 1:
            _average_gradients([*eyes_optimizers.parameters, *words_optimizers.parameters], world)
            dist.all_reduce(stop)
        factor = schedule(step, steps)
        norm = eyes_optimizers.step(factor) + words_optimizers.step(factor)
        step += 1
        for name, value in {f"{length} loss": loss.item(), f"{length} right": right, "norm": norm, **shares}.items():
            if value == value:  # NaN if, for example, a batch has no digits
                mean[name] = value if name not in mean else 0.95 * mean[name] + 0.05 * value
        if rank == 0 and (step % 50 == 0 or step - first in (5, 15)):
            pace = (time.monotonic() - started) / (step - first)
            print(f"joint {step}/{steps} {pace:.2f} s/step", *(f"{k} {v:.3f}" for k, v in mean.items()), flush=True)
        if rank == 0 and (step % 200 == 0 or step == steps or stop > 0):
            run.save("joint.pt", {
                "model": model.state_dict(), "eyes_optimizers": eyes_optimizers.state_dict(),
                "words_optimizers": words_optimizers.state_dict(), "step": step,
            })  # fmt: skip
        if stop > 0:
            break
    if world > 1:
        dist.destroy_process_group()
