"""What libraries say unasked: kept off the terminal. What matters is said in our own words."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
    hidden = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        with mute_libraries():
            importlib.import_module(package)
    finally:
        if hidden is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = hidden
    logging.getLogger(package).setLevel(logging.ERROR)
