"""The neural network behind three calls: pixels of a picture, features of pictures, logits of the next token.

The modules are transformers' own; what is ours is that they are called one by one, so that picture features are
computed once for each content, only the last position's logits are computed, and the cache is one that we control.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.images import decode
from dsvl_cli.engine.kv_cache import GrowingCache
from dsvl_cli.engine.pixels import ImageProcessor

FEATURE_CACHE_BYTES = 256 * 2**20  # of picture features: 2.3 MB a picture at full size in bf16


class Network:
    """A `DeepseekVLForConditionalGeneration` or `DeepseekVLHybridForConditionalGeneration` and its image processor.

    Args:
        module: in eval mode, on its device.
        image_processor: of the same checkpoint.
    """

    def __init__(self, module: Any, image_processor: ImageProcessor) -> None:
        self.module = module
        self.image_processor = image_processor
        self.layers: int = module.config.text_config.num_hidden_layers
        self.vocabulary: int = module.config.text_config.vocab_size
        self.device: torch.device = module.get_input_embeddings().weight.device
        self._vision_weight: torch.Tensor = next(module.model.vision_model.parameters())
        self._features: OrderedDict[str, torch.Tensor] = OrderedDict()

    def pixels(self, picture: Picture) -> dict[str, torch.Tensor]:
        """Give `pixel_values` `(1, 3, side, side)` in float32, for 7b also `high_res_pixel_values`, on the CPU."""
        return self.image_processor(decode(picture))

    @torch.inference_mode()
    def features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Give the aligned features `(pictures * num_image_tokens, hidden)` on the device, in the network's dtype.

        Pictures are encoded one by one: the time is the same on a CPU, the memory is bounded, and a picture's
        features do not depend on its company.
        """
        return torch.cat([self._features_of(picture) for picture in pictures])

    def _features_of(self, picture: Picture) -> torch.Tensor:
        features = self._features.get(picture.sha256)
        if features is None:
            # SAM's tower does not cast its input itself.
            pixels = {
                name: values.to(self._vision_weight.device, self._vision_weight.dtype)
                for name, values in self.pixels(picture).items()
            }
            features = self.module.model.get_image_features(**pixels, return_dict=True).pooler_output[0]
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
    def embed(self, token_ids: torch.Tensor, image_mask: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Give embeddings `(batch, length, hidden)` of ids `(batch, length)`, features where the mask is set.

        Args:
            token_ids: on the device.
            image_mask: `(batch, length)` of bool.
            features: `(image_mask.sum(), hidden)` in reading order, or None if the mask is empty.
        """
        embeddings: torch.Tensor = self.module.get_input_embeddings()(token_ids)
        if features is not None:
            features = features.to(embeddings.device, embeddings.dtype)
            embeddings = embeddings.masked_scatter(image_mask.unsqueeze(-1), features)
        return embeddings

    @torch.inference_mode()
    def forward(
        self,
        embeddings: torch.Tensor,
        cache: GrowingCache,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Append embeddings `(batch, new, hidden)` to the cache; give the next token's logits `(batch, vocabulary)`.

        Args:
            embeddings: of the new positions.
            cache: of the positions before; filled.
            attention_mask: `(batch, before + new)`, 0 at padding; None where there is none.
            position_ids: `(batch, new)`; None counts on from the cache's length.

        Returns:
            logits in float32, as `generate` of transformers has them before its processors.
        """
        hidden = self.module.model.language_model(
            inputs_embeds=embeddings,
            past_key_values=cache,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
        ).last_hidden_state[:, -1]
        logits: torch.Tensor = self.module.lm_head(hidden)
        return logits.float()

    def peak_memory(self) -> int | None:
        """Give the most bytes that were in use at once: of the GPU, else of the process; None if unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if resource is None:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
