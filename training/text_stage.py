"""First stage, language: the language model is trained to answer from ground-truth visual code instead of pictures."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DeepseekVLForConditionalGeneration, PreTrainedTokenizerFast

from training.architecture import WIDTH
from training.codes import ATTRIBUTES, IGNORED, STARTS, VALUES, code_vectors, label_patches, one_hot
from training.conversations import sample_dialogue
from training.optim import Optimizers, schedule
from training.run_state import RunFolder
from training.scenes import Scene, split_random
from training.sequences import Batch, Packer, Row

RATE, MATRIX_RATE = 3e-3, 3e-3
SHORT, LONG = 384, 640  # tokens per row: for one picture, for several
TOKENS = 3840  # per batch
HORIZON = 1700  # steps of the cosine schedule: the stage ends before, followed by the joint one
_LOCAL = ("colour", "kind", "digit", "order", "slot")


def sample_batch(packer: Packer, seed: int, step: int, long: bool) -> tuple[Batch, list[Scene]]:
    """Return the batch of a step, and the scenes of its pictures."""
    length = LONG if long else SHORT
    rows: list[Row] = []
    scenes: list[Scene] = []
    attempt = 0
    while len(rows) < TOKENS // length:
        rng = split_random("train", seed, step * 64 + attempt)
        attempt += 1
        dialogue = sample_dialogue(rng, branches=24 if long else 18, several=1.0 if long else 0.0)
        if (row := packer.row(dialogue, length)) is not None:
            rows.append(row)
            scenes += [dialogue.scenes[picture] for picture in row[1]]
    return packer.batch(rows), scenes


def true_code(scenes: list[Scene], generator: torch.Generator) -> Tensor:
    """Return image tokens from the ground truth, with the errors of a vision tower: (pictures, IMAGE_TOKENS, WIDTH).

    Borders of shapes are uncertain, some patches are mistaken for others, and everything has noise.
    """
    labels = torch.from_numpy(np.stack([label_patches(scene) for scene in scenes]))
    values, _ = one_hot(labels)
    shape = labels.shape[:2]

    def chance(probability: float) -> Tensor:
        return torch.rand(shape, generator=generator) < probability

    mistaken = chance(0.06)
    doubt = torch.rand(shape, generator=generator).unsqueeze(-1)
    for i, (name, size) in enumerate(ATTRIBUTES.items()):
        part = slice(STARTS[name], STARTS[name] + size)
        if name in _LOCAL:
            values[..., STARTS[name]] += (labels[..., i] == IGNORED) * doubt[..., 0]
            other = nn.functional.one_hot(torch.randint(size, shape, generator=generator), size)
            mixed = values[..., part] * (1 - doubt) + other * doubt
            wrong = mistaken | chance(0.03)
            values[..., part] = torch.where(wrong.unsqueeze(-1), mixed, values[..., part])
    level = 0.15 * torch.rand(len(scenes), 1, 1, generator=generator)
    values = values + level * torch.randn(*shape, VALUES, generator=generator)
    blurred: Tensor = values @ code_vectors() + 0.02 * torch.randn(*shape, WIDTH, generator=generator)
    return blurred


class Mouth(nn.Module):
    """The language model, called with embeddings and an attention mask."""

    def __init__(self, model: DeepseekVLForConditionalGeneration) -> None:
        super().__init__()
        self.language_model = model.model.language_model

    def forward(self, embeddings: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Compute hidden states from embeddings, both (n, length, WIDTH)."""
        hidden: Tensor = self.language_model(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return hidden


def embed(mouth: Mouth, batch: Batch, image_tokens: Tensor) -> Tensor:
    """Return the embeddings of a batch with image tokens inserted: (n, length, WIDTH)."""
    embeddings: Tensor = mouth.language_model.embed_tokens(batch.input_ids)
    return embeddings.masked_scatter(batch.image_at.unsqueeze(-1), image_tokens.to(embeddings.dtype))


def answer_loss(mouth: Mouth, hidden: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """Return the weighted cross-entropy of the answer tokens, and their weighted accuracy."""
    weights = batch.weights[:, 1:]
    asked = weights > 0
    logits = (hidden[:, :-1][asked] @ mouth.language_model.embed_tokens.weight.T.to(hidden.dtype)).float()
    targets, weight = batch.input_ids[:, 1:][asked], weights[asked]
    loss = (nn.functional.cross_entropy(logits, targets, reduction="none") * weight).sum() / weight.sum()
    with torch.no_grad():
        right = float(((logits.argmax(-1) == targets) * weight).sum() / weight.sum())
    return loss, right


def lengths(step: int) -> bool:
    """Whether a step uses several pictures: not at first, until single pictures have been learnt."""
    return step % 3 == 2 and step > 300


def train_text(
    model: DeepseekVLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, run: RunFolder, steps: int, seed: int
) -> None:
    """Train the language model in place up to `steps`, resuming from the run's `text.pt`."""
    mouth, packer = Mouth(model), Packer(tokenizer)
    optimizers = Optimizers(mouth.named_parameters(), RATE, MATRIX_RATE)
    step = 0
    if (state := run.load("text.pt")) is not None:
        mouth.load_state_dict(state["mouth"])
        optimizers.load_state_dict(state["optimizers"])
        step = state["step"]
    forward = torch.compile(mouth, dynamic=False)
    started, first = time.monotonic(), step
    mean: dict[str, float] = {}
    while step < steps and not run.stopped:
        run.wait_while_paused()
        long = lengths(step)
        batch, scenes = sample_batch(packer, seed, step, long)
        image_tokens = true_code(scenes, torch.Generator().manual_seed(seed * 1_000_003 + step))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = forward(embed(mouth, batch, image_tokens), batch.positions, batch.mask())
            loss, right = answer_loss(mouth, hidden, batch)
        loss.backward()
        norm = optimizers.step(schedule(step, HORIZON))
        step += 1
        kind = "several" if long else "one"
        for name, value in {f"{kind} loss": loss.item(), f"{kind} right": right, "norm": norm}.items():
            mean[name] = value if name not in mean else 0.95 * mean[name] + 0.05 * value
        if step % 50 == 0 or step - first in (5, 15):
            pace = (time.monotonic() - started) / (step - first)
            print(f"text {step}/{steps} {pace:.2f} s/step", *(f"{k} {v:.3f}" for k, v in mean.items()), flush=True)
        if step % 200 == 0 or step == steps or run.stopped:
            run.save("text.pt", {"mouth": mouth.state_dict(), "optimizers": optimizers.state_dict(), "step": step})
