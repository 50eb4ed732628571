"""An ImageFolder is what the package `datasets` loads: `.ci/run` installs it in an environment of its own.

python -m pytest tests/foreign --datasets PYTHON     # the Python of that environment
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.app.batch.fake_run import fake_batch
from tests.batch.fakes import png

_LOAD = """
import json, sys
from datasets import load_dataset
data = load_dataset("imagefolder", data_dir=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps([[row["image"].getpixel((0, 0)), row["colour"], row["kind"]] for row in data]))
"""


def test_datasets_loads_it(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    python = request.config.getoption("--datasets")
    if python is None:
        pytest.skip("--datasets names no Python that has the package datasets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "sub/ü b.png")):
        (tmp_path / "photos" / name).write_bytes(png(number))
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    (tmp_path / "ask.toml").write_text('colour = "{name}: which colour?"\nkind = "Which kind?"')
    batch, model = fake_batch(monkeypatch)
    model.answer = lambda request: f"about {request.conversation.messages[0].text}"
    assert batch("photos", "-r", "-o", "photos", "--format", "imagefolder", "--ask", "ask.toml") == 1
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    command = [python, "-c", _LOAD, str(tmp_path / "photos"), str(tmp_path / "cache")]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    assert found == [
        [[0, 0, 0], "about a: which colour?", "about Which kind?"],
        [[1, 0, 0], "about ü b: which colour?", "about Which kind?"],
    ]
