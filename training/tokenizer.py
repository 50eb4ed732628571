"""The checkpoint's small tokenizer: byte-level BPE trained on the project's questions, with separate digits."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from training.conversations import sample_dialogue
from training.scenes import split_random

BOS, EOS, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
VOCABULARY = 1024  # rows of the embedding: a multiple of 64


def _corpus(seed: int) -> Iterator[str]:
    yield from [f"{SYSTEM}\n\nUser: x\n\nAssistant: x"] * 400
    for index in range(1500):
        rng: random.Random = split_random("train", seed, index)
        dialogue = sample_dialogue(rng, branches=6)
        for turn in (*dialogue.trunk, *(turn for branch in dialogue.branches for turn in branch)):
            text = "".join(part for part in turn.parts if isinstance(part, str))
            yield text
            yield f"User: {text}\n\nAssistant: {turn.answer}"


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer, with DeepSeek's special tokens at the end of the vocabulary.

    As in the public checkpoints, the start of sequence is added by the tokenizer and not by the chat template.
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(_corpus(seed), trainer)
    trained.add_special_tokens([BOS, EOS, IMAGE])
    trained.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, trained.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    if len(tokenizer) > VOCABULARY:
        raise RuntimeError(f"the tokenizer has {len(tokenizer)} tokens, but the model only {VOCABULARY}")
    return tokenizer
