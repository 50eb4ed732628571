"""The public names of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_type

import pytest

import dsvl_cli
from tests.test_imports import HEAVY, loaded_by


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = loaded_by("import dsvl_cli\nfrom dsvl_cli import Conversation, LoadOptions, Message, SamplingParams")
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", dsvl_cli.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(dsvl_cli, name)
    assert value.__name__ == name
    assert value.__module__.startswith("dsvl_cli.")
    assert name in dir(dsvl_cli)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'torch'"):
        dsvl_cli.torch  # noqa: B018


def test_the_types_ship() -> None:
    assert (Path(dsvl_cli.__file__).parent / "py.typed").is_file()
    assert set(dsvl_cli.__all__) == {name for names in dsvl_cli._MODULES.values() for name in names}


def test_the_public_names_are_typed() -> None:
    """Checked by mypy: an `Any` would let the second line pass, and leave the comment unused."""
    options: dsvl_cli.LoadOptions = dsvl_cli.LoadOptions(model="tiny")
    assert_type(dsvl_cli.load_model, Callable[..., dsvl_cli.VisionLanguageModel])  # type: ignore[assert-type]
    assert options.model == "tiny"
