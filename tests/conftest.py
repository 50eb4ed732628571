"""Fixtures that several test modules share: the embedded model, a tiny random hybrid, pictures, a console."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before any library reads them: no test may reach out to a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("DSVL_")]:
    del os.environ[_name]
# A developer's own settings must not change what is tested; there is no such folder.
os.environ["DSVL_CONFIG_DIR"] = os.path.join(os.path.dirname(__file__), "no-config")

# Whoever runs the tests in the background may have these ignored, and children inherit that.
for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGHUP", 0), signal.SIG_DFL)):
    if _signal and signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)

if TYPE_CHECKING:
    from dsvl_cli.engine.model import VisionLanguageModel


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the folder of checkpoints that an older transformers wrote."""
    parser.addoption("--foreign", metavar="FOLDER", help="checkpoints of an older transformers, see tests/foreign")


@pytest.fixture(scope="session")
def tiny() -> VisionLanguageModel:
    """The embedded model in float32, in which equal means equal."""
    from dsvl_cli.engine.model import load_model
    from dsvl_cli.engine.options import LoadOptions

    # One thread: the work of a step is too small to be worth sharing.
    return load_model(LoadOptions(model="tiny", dtype="float32", device="cpu", threads=1))


@pytest.fixture(scope="session")
def hybrid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the 7b's class, tiny and with random weights."""
    from tests.checkpoints import write_hybrid

    folder = tmp_path_factory.mktemp("hybrid")
    write_hybrid(folder)
    return folder


@pytest.fixture(scope="session")
def hybrid(hybrid_folder: Path) -> VisionLanguageModel:
    """The tiny random hybrid in float32."""
    from dsvl_cli.engine.model import load_model
    from dsvl_cli.engine.options import LoadOptions

    return load_model(LoadOptions(model=str(hybrid_folder), dtype="float32", device="cpu"))
