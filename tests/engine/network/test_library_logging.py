"""What libraries say and import unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchao")

PROCESS = """
import sys
from dsvl_cli.engine.conversion.compare import draw_pictures, follow
from dsvl_cli.engine.model import load_model
from dsvl_cli.engine.options import LoadOptions

plain = load_model(LoadOptions(model="tiny", device="cpu"))
assert "torchao" not in sys.modules, "every start pays for its import"
quantized = load_model(LoadOptions(model="tiny", device="cpu", quantization="torchao-int8"))
assert "torchao" in sys.modules
quantized.network.module.save_pretrained(sys.argv[1])
question = draw_pictures()[:1]
assert follow(plain, question, None).token_ids == follow(quantized, question, None).token_ids
"""


def test_torchao_is_imported_only_for_its_own_formats_and_works_afterwards(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", PROCESS, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert b"Int8Tensor" in (tmp_path / "model.safetensors").read_bytes()
