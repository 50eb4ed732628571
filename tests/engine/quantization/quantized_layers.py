"""What a backend has made of a module."""

from __future__ import annotations

from torch import nn


def find_quantized_layers(module: nn.Module) -> set[str]:
    """List the layers of a loaded module that a backend has really quantized."""
    return {
        name
        for name, layer in module.named_modules()
        if type(layer).__name__ in ("Linear4bit", "Linear8bitLt")
        or (isinstance(layer, nn.Linear) and type(layer.weight).__module__.startswith("torchao."))
    }
