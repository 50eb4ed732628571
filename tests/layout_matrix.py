"""What is done with a checkpoint in any layout, and what must come of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dsvl_cli.cli import main
from dsvl_cli.engine.checkpoint.find import check_folder
from dsvl_cli.engine.network.model_class import find_model_class
from dsvl_cli.engine.options import DEFAULT_PROMPT
from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS

PICTURES = Path(__file__).parents[1] / "examples"
PICTURE = PICTURES / "red-circle.png"
SEEN = "A red circle on a white background."
TOKENS = 12

# torchao packs 4 bits for GPUs only; dsvl's own formats are for the 1.3b.
LOADED = [name for name in FORMATS if name != "torchao-int4"]
STORED = [name for name in STORED_FORMATS if name != "torchao-int4"]
ACTIONS = (
    "describe",
    "chat",
    "batch",
    "cache",
    *(f"load {name}" for name in LOADED),
    *(f"quantize {name}" for name in STORED),
)


def run(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str = ""
) -> str:
    """Run a command in this process, and give what it wrote to stdout."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    status = main([*arguments, "--device", "cpu", "--threads", "1"])
    written = capsys.readouterr()
    assert status == 0, written.err
    assert "Traceback" not in written.err
    return written.out


@cache
def answer_by_transformers(folder: Path) -> str:
    """The answer of transformers' own processor, loader and `generate` in float32, decoded by its tokenizer."""
    from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor
    from transformers.models.deepseek_vl_hybrid.processing_deepseek_vl_hybrid import DeepseekVLHybridProcessor

    from dsvl_cli.engine.pictures.images import decode, read_picture

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    processor_class = DeepseekVLHybridProcessor if kind == "deepseek_vl_hybrid" else DeepseekVLProcessor
    processor: Any = processor_class.from_pretrained(folder, backend="pil", local_files_only=True)
    content = [{"type": "image", "image": decode(read_picture(str(PICTURE)))}, {"type": "text", "text": DEFAULT_PROMPT}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    model = find_model_class(kind).from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    end = processor.tokenizer.eos_token_id
    output = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=end, pad_token_id=end)
    ids = output[0, inputs["input_ids"].shape[1] :]
    text: str = processor.tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def check(
    action: str,
    folder: Path,
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Do one thing with a checkpoint. In float32 the answer is that of transformers; else the embedded model sees.

    Args:
        action: one of `ACTIONS`.
        folder: the checkpoint.
        work: a folder for what is written.
        capsys: reads what is written.
        monkeypatch: gives stdin.
    """
    sees = check_folder("x", folder).model_type == "deepseek_vl"
    model = ["--model", str(folder), "--max-new-tokens", str(TOKENS)]
    exact = [*model, "--dtype", "float32"]

    def command(*arguments: str, typed: str = "") -> str:
        return run(list(arguments), capsys, monkeypatch, typed)

    def describe(*arguments: str) -> str:
        return command("describe", str(PICTURE), "--quiet", *arguments).strip()

    if action in ("describe", "chat", "batch", "cache"):
        wanted = answer_by_transformers(folder)
        assert not sees or wanted == SEEN
        assert _answers(action, describe, command, exact, work) == [wanted] * (2 if action == "cache" else 1)
        return
    kind, _, name = action.partition(" ")
    if kind == "load":
        if not sees and not FORMATS[name].is_stored:
            assert main(["describe", str(PICTURE), *model, "--quantization", name, "--device", "cpu"]) == 1
            assert "cannot be loaded in the formats int8 and int4" in capsys.readouterr().err
            return
        answer = describe(*model, "--quantization", name)
        assert answer == SEEN if sees else answer
        return
    out = work / name
    report = command("quantize", str(folder), str(out), str(PICTURE), "--format", name, "--verify")
    assert report
    answer = describe("--model", str(out), "--max-new-tokens", str(TOKENS))
    assert answer == SEEN if sees else answer


def _answers(
    action: str, describe: Callable[..., str], command: Callable[..., str], exact: list[str], work: Path
) -> list[str]:
    if action == "describe":
        return [describe(*exact)]
    if action == "cache":
        return [describe(*exact, "--cache"), describe(*exact, "--cache")]
    if action == "chat":
        written = command("chat", str(PICTURE), *exact, "--json", "--quiet", "--no-save", typed=f"{DEFAULT_PROMPT}\n")
        return [json.loads(line)["text"].strip() for line in written.splitlines()]
    command("batch", str(PICTURE), "-o", str(work / "rows.jsonl"), *exact, "--quiet")
    return [json.loads(line)["text"].strip() for line in (work / "rows.jsonl").read_text("utf-8").splitlines()]
