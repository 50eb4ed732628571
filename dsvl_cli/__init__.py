"""dsvl: talk with pictures on your own machine.

The public names are imported when they are first used, so `import dsvl_cli` is cheap and imports no torch:

    from dsvl_cli import Conversation, LoadOptions, Message, SamplingParams, load_model, read_picture

Everything else is internal and may change between releases.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsvl_cli.engine.conversation import Chunk, Conversation, Message, Picture, Reply, Stats, TokenLogprob
    from dsvl_cli.engine.model import VisionLanguageModel, load_model
    from dsvl_cli.engine.options import LoadOptions, SamplingParams
    from dsvl_cli.engine.pictures.images import read_picture
    from dsvl_cli.errors import DsvlError

__version__ = "0.1.0"
__all__ = [
    "Chunk",
    "Conversation",
    "DsvlError",
    "LoadOptions",
    "Message",
    "Picture",
    "Reply",
    "SamplingParams",
    "Stats",
    "TokenLogprob",
    "VisionLanguageModel",
    "load_model",
    "read_picture",
]
_MODULES = {
    "errors": ("DsvlError",),
    "engine.conversation": ("Chunk", "Conversation", "Message", "Picture", "Reply", "Stats", "TokenLogprob"),
    "engine.model": ("VisionLanguageModel", "load_model"),
    "engine.options": ("LoadOptions", "SamplingParams"),
    "engine.pictures.images": ("read_picture",),
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names too, whether they are imported or not."""
    return sorted({*globals(), *__all__})
