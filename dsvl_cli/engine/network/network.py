"""The neural network behind three calls: pixels of a picture, features of pictures, logits of the next tokens.

The language model is our own decoder; the vision tower is ours or that of transformers. Features are cached by the
picture's content.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.network.decoder import Decoder, Segment
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.network.pixels import ImageProcessor
from dsvl_cli.engine.network.static_step import StaticStep, can_record
from dsvl_cli.engine.pictures.images import decode
from dsvl_cli.engine.progress import OnReading, Reading
from dsvl_cli.engine.text.prompt import PreparedPrompt

FEATURE_CACHE_BYTES = 256 * 2**20  # of picture features, 2.3 MB per picture at full size in bf16

# `pixel_values` and, for 7b, `high_res_pixel_values` of one picture -> features `(num_image_tokens, hidden)`.
Tower = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


class Network:
    """A loaded DeepSeek-VL.

    Args:
        decoder: the language model.
        tower: encodes the pixels of a picture into features for the language model.
        image_processor: turns a picture into pixels.
        module: transformers' module if it loaded the weights; the decoder shares them.
    """

    def __init__(self, decoder: Decoder, tower: Tower, image_processor: ImageProcessor, module: Any = None) -> None:
        self.decoder = decoder
        self.module = module
        self.image_processor = image_processor
        self.device: torch.device = decoder.device
        self._tower = tower
        self._can_record = can_record(decoder)
        self._static: StaticStep | None = None
        self._features: OrderedDict[str, torch.Tensor] = OrderedDict()

    def new_cache(self, reserve: int = 0) -> KVCache:
        """Make an empty cache for one sequence that allocates `reserve` positions at its first use."""
        return KVCache(self.decoder.config.layers, reserve)

    def pixels(self, picture: Picture) -> dict[str, torch.Tensor]:
        """Return `pixel_values` `(1, 3, side, side)` in float32, for 7b also `high_res_pixel_values`, on the CPU."""
        return self.image_processor(decode(picture))

    @torch.inference_mode()
    def features(self, pictures: Sequence[Picture], before_each: Callable[[int], None] | None = None) -> torch.Tensor:
        """Return the aligned features `(pictures * num_image_tokens, hidden)` on the device.

        Pictures are encoded one by one: on a CPU this takes no longer, memory is bounded, and a picture's features do
        not depend on the others in the batch.

        Args:
            pictures: what to encode.
            before_each: called with the index of each picture that has to be encoded, before it is.
        """
        return torch.cat([self._features_of(picture, index, before_each) for index, picture in enumerate(pictures)])

    def _features_of(self, picture: Picture, index: int, before: Callable[[int], None] | None = None) -> torch.Tensor:
        features = self._features.get(picture.sha256)
        if features is None:
            if before is not None:
                before(index)
            features = self._tower(self.pixels(picture))
            self._features[picture.sha256] = features
            while len(self._features) > 1 and self._feature_bytes() > FEATURE_CACHE_BYTES:
                self._features.popitem(last=False)
        self._features.move_to_end(picture.sha256)
        return features

    def forget(self) -> None:
        """Drop the features of all pictures."""
        self._features.clear()

    def _feature_bytes(self) -> int:
        return sum(features.nbytes for features in self._features.values())

    @torch.inference_mode()
    def prefill(self, prompt: PreparedPrompt, cache: KVCache, on_reading: OnReading | None = None) -> torch.Tensor:
        """Compute the part of a prompt that is not in the cache; return the next token's logits `(1, vocabulary)`.

        Args:
            prompt: its first `cache.length` positions are in the cache, and at least one is not.
            cache: the new positions are appended.
            on_reading: told how far the prompt has been read: each picture, then the share of the layers.
        """
        cached, total = cache.length, len(prompt)

        def tell_picture(index: int) -> None:
            if on_reading is not None:
                on_reading(Reading(cached, total, index + 1, missing))

        def tell_layer(layers: int) -> None:
            if on_reading is not None:
                on_reading(Reading(cached + (total - cached) * layers // len(self.decoder.layers), total))

        ids = torch.tensor(prompt.token_ids[cache.length :], device=self.device)
        embeddings = self.decoder.embed(ids)
        mask = ids == prompt.image_token_id
        new = int(mask.sum())
        if new:
            # The cached prefix may end within a picture: the missing features are the last ones.
            missing = -(-new // prompt.num_image_tokens)
            features = self.features(prompt.pictures[-missing:], tell_picture)[-new:]
            embeddings = embeddings.masked_scatter(mask.unsqueeze(1), features.to(embeddings.device, embeddings.dtype))
        after_layer = None if on_reading is None else tell_layer
        return self.decoder.forward(embeddings, [Segment(cache, len(ids))], after_layer)

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int], caches: Sequence[KVCache]) -> torch.Tensor:
        """Append one token to each of several sequences; return the next logits `(sequences, vocabulary)`."""
        if len(caches) == 1 and self._can_record:
            return self._replay(token_ids[0], caches[0])
        embeddings = self.decoder.embed(torch.tensor(token_ids, device=self.device))
        return self.decoder.forward(embeddings, [Segment(cache, 1) for cache in caches])

    @torch.inference_mode()
    def branch(self, token_ids: Sequence[int], parents: Sequence[int], cache: KVCache) -> torch.Tensor:
        """Compute several continuations of a sequence together; return the logits after each token.

        Args:
            token_ids: of the continuations, as a tree.
            parents: the index of the token that each token follows, -1 for those that follow the sequence.
            cache: of the sequence; unchanged.

        Returns:
            `(tokens, vocabulary)` in float32.
        """
        return self.decoder.branch(self.decoder.embed(torch.tensor(token_ids, device=self.device)), cache, parents)

    def _replay(self, token_id: int, cache: KVCache) -> torch.Tensor:
        """Append one token to a single sequence by a CUDA graph."""
        if self._static is None or self._static.cache is not cache:
            self._static = StaticStep(self.decoder, cache, record=True)
        return self._static(token_id)

    def peak_memory(self) -> int | None:
        """Return the peak memory in bytes, of the GPU if there is one, else of the process; None if unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if resource is None:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux
