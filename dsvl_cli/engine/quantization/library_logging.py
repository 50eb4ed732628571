"""What libraries say unasked: kept off the terminal. What matters is said in our own words."""

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
    """Keep bars, warnings and log lines of the libraries off the terminal while models are loaded."""
    # A repository without safetensors would start a thread that asks the hub for a conversion.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torchao logs at import, transformers and accelerate while they load
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
            yield
    finally:
        logging.disable(level)


def import_backend(package: str) -> None:
    """Import bitsandbytes or torchao quietly, and keep bitsandbytes quiet: it logs for each layer at each token.

    On some CPUs and GPUs bitsandbytes fetches native code from the hub where the package `kernels` is installed;
    here it finds no such package.
    """
    with _hidden("kernels"), mute_libraries():
        importlib.import_module(package)
    logging.getLogger(package).setLevel(logging.ERROR)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let whoever looks for a package find none."""
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
    """Keep transformers from importing torchao together with a model's class: it takes longer than loading `tiny`.

    What transformers would have taken out of it is found when it is called, so that quantizing with torchao still
    works afterwards. Where torchao is imported already, nothing is done.
    """
    if "torchao" in sys.modules:
        yield
        return
    from transformers.utils import import_utils

    with _hidden("torchao"):
        yield
    import_utils.is_torchao_available.cache_clear()  # it has learnt that there is none
    quantizer = sys.modules.get("transformers.quantizers.quantizer_torchao")
    if quantizer is not None and importlib.util.find_spec("torchao") is not None:
        vars(quantizer).setdefault("flatten_tensor_state_dict", _flatten_tensors)


def _flatten_tensors(*arguments: Any, **options: Any) -> Any:
    from torchao.prototype.safetensors import safetensors_support

    return safetensors_support.flatten_tensor_state_dict(*arguments, **options)
