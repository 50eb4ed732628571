"""Unrequested output of libraries, kept off the terminal. What matters is reported in our own words."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mute_libraries() -> Iterator[None]:
    """Suppress progress bars, warnings and log lines of the libraries while models are loaded."""
    # For a repository without safetensors, transformers would start a thread that requests a conversion from the hub.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torchao logs at import, transformers and accelerate while loading
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
            yield
    finally:
        logging.disable(level)


def import_backend(package: str) -> None:
    """Import bitsandbytes or torchao quietly, and keep bitsandbytes quiet: it logs for every layer at every token.

    On some CPUs and GPUs bitsandbytes downloads native code from the hub if the package `kernels` is installed, so that
    package is hidden from it.
    """
    with _hidden("kernels"), mute_libraries():
        importlib.import_module(package)
    logging.getLogger(package).setLevel(logging.ERROR)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make imports of a package fail as if it were not installed."""
    module = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if module is None:
            del sys.modules[package]
        else:
            sys.modules[package] = module


@contextmanager
def spare_torchao() -> Iterator[None]:
    """Keep transformers from importing torchao with a model class, which takes longer than loading `tiny`.

    The one function that transformers would have imported from it is replaced by a lazy import, so quantizing with
    torchao still works afterwards. If torchao is already imported, this does nothing.
    """
    if "torchao" in sys.modules:
        yield
        return
    from transformers.utils import import_utils

    with _hidden("torchao"):
        yield
    import_utils.is_torchao_available.cache_clear()  # it has cached that there is none
    quantizer = sys.modules.get("transformers.quantizers.quantizer_torchao")
    if quantizer is not None and importlib.util.find_spec("torchao") is not None:
        vars(quantizer).setdefault("flatten_tensor_state_dict", _flatten_tensors)


def _flatten_tensors(*arguments: Any, **options: Any) -> Any:
    from torchao.prototype.safetensors import safetensors_support

    return safetensors_support.flatten_tensor_state_dict(*arguments, **options)
