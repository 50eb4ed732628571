"""Fixtures that several test modules share: models and chance; the quick tier; and what no test may touch."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.quick import MODEL_FIXTURES, is_quick

# Before any library reads them: no test may reach out to a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# `tiny` is too small for its work to be worth sharing: threads would only wait for each other, in children too. What is
# about several threads asks for them.
os.environ["OMP_NUM_THREADS"] = "1"
for _name in [name for name in os.environ if name.startswith("DSVL_") and name != "DSVL_KERNEL_FLAGS"]:
    del os.environ[_name]
# A developer's own settings must not change what is tested; there is no such folder.
os.environ["DSVL_CONFIG_DIR"] = os.path.join(os.path.dirname(__file__), "no-config")

# Whoever runs the tests in the background may have these ignored, and children inherit that.
for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGHUP", 0), signal.SIG_DFL)):
    if _signal and signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)

# A failure says how to repeat it, wherever it came up. Nothing depends on time, which other programs may take.
hypothesis.settings.register_profile(
    "dsvl", print_blob=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("dsvl")

if TYPE_CHECKING:
    from dsvl_cli.engine.model import VisionLanguageModel


_MOST_WORKERS = 4  # each takes about 1 GB


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let what was left to chance be repeated, and take the folder of checkpoints that an older transformers wrote."""
    parser.addoption("--foreign", metavar="FOLDER", help="checkpoints of an older transformers, see tests/foreign")
    parser.addoption("--datasets", metavar="PYTHON", help="a Python with the package datasets, see tests/foreign")
    parser.addoption("--openai", metavar="PYTHON", help="a Python with the package openai, see tests/foreign")
    parser.addoption("--jsdom", metavar="FOLDER", help="a folder with the npm package jsdom, see tests/foreign")
    parser.addoption("--seed", type=int, default=None, metavar="N", help="repeat what was drawn with this seed")


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the whole suite and the quick tier among processes; parts of them and campaigns run in one."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.markexpr == "soak":
        return 0
    from dsvl_cli.engine.options import count_cpus

    return min(count_cpus(), _MOST_WORKERS)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Numbers that are others in each run; a failure tells the seed."""
    seed = request.config.getoption("--seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    request.node.add_report_section("setup", "chance", f"the seed is {seed}; --seed {seed} draws the same again")
    return random.Random(seed)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules that need torch out of a run of the quick tier: collecting one imports it."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "quick" and is_test and not is_quick(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is quick."""
    for item in items:
        needs_model = MODEL_FIXTURES & set(getattr(item, "fixturenames", ()))
        name = getattr(item, "originalname", "")
        if is_quick(item.path, name) and not needs_model and item.get_closest_marker("soak") is None:
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let a quick test fail that imports torch."""
    loaded = "torch" in sys.modules
    yield
    if item.get_closest_marker("quick") is not None and not loaded and "torch" in sys.modules:
        pytest.fail("this test imports torch: its module belongs into SLOW in tests/quick.py", pytrace=False)


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
