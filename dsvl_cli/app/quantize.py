"""`dsvl quantize`: writes a quantized copy of a model, and verifies it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError, SomeFailed, UsageError
from dsvl_cli.terminal.console import Console
from dsvl_cli.terminal.deferral import deferred_signals
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.table import align
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, Wait

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.conversion.convert import Written
    from dsvl_cli.engine.conversion.verify import Figures, Verification
    from dsvl_cli.engine.quantization.formats import Recipe


def quantize_model(
    console: Console,
    load: LoadOptions,
    out: Path,
    images: Sequence[str],
    *,
    overwrite: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Write a quantized copy of a model, and compare the two if `verify` is set.

    Raises:
        UsageError: pictures are given without `verify`, or no format.
        DsvlError: the copy cannot be written.
        SomeFailed: the copy is damaged; each problem was reported.
    """
    if images and not verify:
        raise UsageError("pictures are used only with --verify", "add --verify, or leave out the pictures")
    from dsvl_cli.engine.checkpoint.find import check_folder, find_checkpoint
    from dsvl_cli.engine.machine.detect import detect_machine
    from dsvl_cli.engine.machine.plan import choose_device
    from dsvl_cli.engine.pictures.images import expand_sources, read_picture

    pictures = [read_picture(source, offline=load.offline) for source in expand_sources(images)]
    with console.working(Wait("quantizing", CTRL_C_STOPS, "quantizing")):
        with deferred_signals():
            from dsvl_cli.engine.conversion.convert import quantize_checkpoint
        from dsvl_cli.engine.quantization.formats import resolve_recipe

        listener = ConsoleListener(console)
        machine = detect_machine()
        recipe = resolve_recipe(load, machine, listener, to_store=True)
        if recipe is None:
            raise UsageError("no quantization format is given", "add --format 4bit")
        if load.threads is not None:
            import torch

            torch.set_num_threads(load.threads)
        source = find_checkpoint(load, listener)
        device = choose_device(load.device, machine).value
        written = quantize_checkpoint(source, out, recipe, listener, device=device, overwrite=overwrite)
    console.status(
        f"{out}: {format_bytes(written.weight_bytes)} as {recipe.format.name}, "
        f"source {format_bytes(source.weight_bytes)}; {len(written.selection.quantized)} layers quantized"
    )
    verification = None
    if verify:
        from dsvl_cli.engine.conversion.compare import draw_pictures
        from dsvl_cli.engine.conversion.verify import verify_checkpoint

        with console.working(Wait("verifying", CTRL_C_STOPS, "verifying")):
            copy = check_folder(str(out), written.path)
            verification = verify_checkpoint(source, copy, load, pictures or draw_pictures(), listener)
    if as_json:
        console.write(json.dumps(_to_row(source, recipe, written, verification)) + "\n")
    elif verification is not None:
        console.write("\n".join(align(_to_table(verification), console.width)) + "\n")
    if verification is not None and verification.problems:
        for problem in verification.problems[:10]:
            console.error(DsvlError(problem))
        raise SomeFailed(f"{len(verification.problems)} problems")


def _to_row(source: Checkpoint, recipe: Recipe, written: Written, verification: Verification | None) -> dict[str, Any]:
    """Return the `--json` object."""
    row: dict[str, Any] = {
        "source": source.name,
        "path": str(written.path),
        "format": recipe.format.name,
        "source_bytes": source.weight_bytes,
        "bytes": written.weight_bytes,
        "quantized": list(written.selection.quantized),
        "misshapen": dict(written.selection.misshapen),
    }
    if verification is not None:
        row["verification"] = asdict(verification)
    return row


def _to_table(verification: Verification) -> list[tuple[str, str, str]]:
    layers = verification.weights.layers
    largest = max(layers, key=lambda layer: layer.whole)
    rows = [
        ("quantized layers", str(len(layers)), f"{len(verification.weights.damaged)} damaged"),
        ("largest layer error", f"{largest.whole:.4f}", largest.name),
        ("largest error in 64 weights", f"{max(layer.worst for layer in layers):.4f}", ""),
        ("other tensors changed", str(len(verification.weights.changed)), ""),
    ]
    answers = verification.answers
    if answers is None or verification.source is None or verification.quantized is None:
        return rows
    return [
        *rows,
        ("same greedy answers", f"{answers.same_answers} of {answers.pictures}", ""),
        ("same most likely token", f"{answers.agreement:.1%}", f"of {answers.tokens} tokens"),
        ("mean KL divergence", f"{answers.mean_kl:.4f}", "nats per token"),
        ("KL divergence, 99th percentile", f"{answers.p99_kl:.4f}", "nats per token"),
        *_compare(verification.source, verification.quantized),
    ]


def _compare(source: Figures, quantized: Figures) -> list[tuple[str, str, str]]:
    return [
        ("decoding", f"{quantized.tokens_per_second:.1f} tokens/s", f"source {source.tokens_per_second:.1f} tokens/s"),
        ("memory, estimated", format_bytes(quantized.memory_bytes), f"source {format_bytes(source.memory_bytes)}"),
        ("on disk", format_bytes(quantized.disk_bytes), f"source {format_bytes(source.disk_bytes)}"),
    ]
