"""The README.md of a quantized checkpoint: its source, what was quantized, how to load it."""

from __future__ import annotations

import re
from collections import Counter

from dsvl_cli import __version__
from dsvl_cli.engine.checkpoint.find import ALIASES, EMBEDDED, Checkpoint
from dsvl_cli.engine.network.model_class import find_model_class
from dsvl_cli.engine.quantization.backends import describe_versions
from dsvl_cli.engine.quantization.formats import Recipe
from dsvl_cli.engine.quantization.selection import Selection
from dsvl_cli.engine.units import format_bytes

_NUMBER = re.compile(r"\.\d+(?=\.)")


def write_model_card(checkpoint: Checkpoint, recipe: Recipe, selection: Selection, weight_bytes: int) -> str:
    """Return the model card in Markdown.

    Args:
        checkpoint: the source.
        recipe: what was quantized, and to which format.
        selection: the layers.
        weight_bytes: the size of the quantized weights.
    """
    source = checkpoint.name if checkpoint.name == EMBEDDED else ALIASES.get(checkpoint.name, checkpoint.name)
    commit = f", commit {checkpoint.commit}" if checkpoint.commit else ""
    group = f", groups of {recipe.group_size}" if recipe.format.name == "torchao-int4" else ""
    layers = Counter(_NUMBER.sub(".*", name) for name in selection.quantized)
    class_name = find_model_class(checkpoint.model_type).__name__
    lines = [
        f"# {source}, {recipe.format.name}",
        "",
        f"A copy of {source}{commit} with quantized linear layers, made by dsvl {__version__}.",
        "The licence is that of the source.",
        "",
        "| | |",
        "|---|---|",
        f"| format | {recipe.format.name}{group} |",
        f"| weights | {format_bytes(weight_bytes)}; source: {format_bytes(checkpoint.weight_bytes)} |",
        f"| fingerprint of the source | {checkpoint.fingerprint} |",
        *(f"| {package} | {version} |" for package, version in describe_versions().items()),
        "",
        "## Quantized layers",
        "",
        *(f"- `{name}` ({count})" for name, count in layers.items()),
        "",
    ]
    if selection.misshapen:
        lines += ["Not quantized, because of their shape:", ""]
        lines += [f"- `{name}`: {why}" for name, why in selection.misshapen.items()]
        lines.append("")
    lines += [
        "## Use",
        "",
        "```python",
        f"from transformers import AutoProcessor, {class_name}",
        "",
        f'model = {class_name}.from_pretrained("FOLDER", dtype="auto", device_map="auto")',
        'processor = AutoProcessor.from_pretrained("FOLDER")',
        "```",
        "",
        "or `dsvl chat --model FOLDER`.",
        "",
    ]
    return "\n".join(lines)
