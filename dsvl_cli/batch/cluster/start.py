"""Starts Ray on this machine, or connects to a cluster; and how many workers fit in there. Imports Ray in functions."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dsvl_cli.engine.options import count_cpus
from dsvl_cli.errors import DsvlError, UsageError

SPARE_CPUS = 2  # for reading and writing: a pool of actors that takes all CPUs waits for ever
_LOCAL_SPARE_CPUS = 4  # beside these, one filters what is done, and one reads the manifest
_OBJECT_STORE_BYTES = 2 * 2**30
_COUNT = re.compile(r"([1-9][0-9]{0,5})(?::([1-9][0-9]{0,5}))?", re.ASCII)
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # before the import
    "RAY_ENABLE_AUTO_CONNECT": "0",  # nothing starts Ray but `started`
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
# Ray replaces a loopback address by that of the network, unless it is not to make clusters of several machines.
_LOCAL_VARIABLES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_QUIET_VARIABLES = {"RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True, slots=True)
class Workers:
    """The number of workers, and what each of them takes.

    Attributes:
        least, most: their number; they are as many as there is work for.
        cpus, gpus: of each.
    """

    least: int
    most: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        number = f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"
        each = f", each with {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{number} worker{'s' * (self.most > 1)}{each}"


def parse_workers(text: str) -> tuple[int, int]:
    """Parse `8`, or `1:64` for a range.

    Raises:
        UsageError: it is something else.
    """
    match = _COUNT.fullmatch(text.strip())
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not least or most < least:
        raise UsageError(f"--workers is {text!r}; it must be a number such as 8, or a range such as 1:64")
    return least, most


def check_installed() -> None:
    """Raise DsvlError if Ray is not installed."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise DsvlError("--engine ray needs Ray, which is not installed", "pip install 'dsvl[ray]'")


def choose_workers(
    wanted: tuple[int, int] | None, gpus: float | None, threads: int | None, resources: Mapping[str, float]
) -> Workers:
    """Return the workers for a cluster.

    Args:
        wanted: the least and the most number that the user asked for.
        gpus: of each, as the user asked for.
        threads: of each.
        resources: what the cluster has now.

    Raises:
        DsvlError: they do not fit beside what reads and writes.
    """
    total_cpus, total_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    each_gpus = gpus if gpus is not None else float(total_gpus >= 1)
    each_cpus = float(threads or 1)
    fits = int((total_cpus - SPARE_CPUS) // each_cpus)
    if each_gpus:
        fits = min(fits, int(total_gpus // each_gpus))
    least, most = wanted or (max(fits, 1), max(fits, 1))
    if fits < least:
        has = f"{total_cpus:g} CPUs" + (f" and {total_gpus:g} GPUs" if each_gpus else "")
        needs = f"{least * each_cpus:g} CPUs" + (f" and {least * each_gpus:g} GPUs" if each_gpus else "")
        raise DsvlError(
            f"{least} workers need {needs}, but the cluster has {has}, and {SPARE_CPUS} CPUs read and write",
            "use fewer --workers, or add machines",
        )
    return Workers(least, most, each_cpus, each_gpus)


@contextlib.contextmanager
def started(address: str, workers: tuple[int, int] | None, threads: int | None, *, verbose: bool) -> Iterator[Any]:
    """Start Ray on this machine or connect to a cluster, and leave it at the end.

    Args:
        address: `local`, `auto` for a cluster that this machine belongs to, or an address.
        workers: the number of workers, which a local Ray makes room for.
        threads: of each worker.
        verbose: show Ray's own messages.

    Yields:
        the module `ray`.

    Raises:
        DsvlError: there is no such cluster.
    """
    variables = _VARIABLES | (_LOCAL_VARIABLES if address == "local" else {}) | ({} if verbose else _QUIET_VARIABLES)
    os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise DsvlError(f"Ray cannot be loaded: {exc}", "pip install 'dsvl[ray]'") from exc
    level = logging.INFO if verbose else logging.CRITICAL
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": verbose, "namespace": "dsvl"}
    if address == "local":
        # Logical CPUs: workers and what reads and writes share the real ones, as threads of one program would.
        most = workers[1] if workers else count_cpus()
        options.update(
            address="local",
            num_cpus=most * (threads or 1) + _LOCAL_SPARE_CPUS,
            include_dashboard=False,
            object_store_memory=_choose_store_bytes(),
        )
    else:
        options["address"] = address
    with contextlib.ExitStack() as stack:
        # Ray prints what happens on its machines to stdout.
        place = sys.stderr if verbose else stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(place))
        with contextlib.nullcontext() if verbose else _silent_descriptor():
            _connect(ray, address, options)
        stack.callback(ray.shutdown)
        if not verbose:
            stack.enter_context(warnings.catch_warnings(action="ignore"))
            _silence()
        yield ray


def _connect(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except ImportError as exc:
        raise DsvlError(f"{address} needs Ray's client, which is not installed", "pip install 'ray[client]'") from exc
    except Exception as exc:
        reason = " ".join(str(exc).split())[:300]
        hint = "ray start --head starts one" if address == "auto" else "see that its address is right"
        raise DsvlError(f"no Ray cluster at {address}: {reason}", hint) from exc


@contextlib.contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Discard what is written to descriptor 2, such as the line with which Ray's C++ part notes its level."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _silence() -> None:
    """Keep Ray's messages out of the terminal; its own files have them."""
    for name in ("ray", "ray.data"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL)


def _choose_store_bytes() -> int:
    import psutil

    return int(min(_OBJECT_STORE_BYTES, psutil.virtual_memory().available // 5))


def list_open_ports() -> list[int]:
    """Return the ports of the processes below this one that other machines can reach."""
    import psutil

    found: set[int] = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN and not _is_loopback(connection.laddr.ip):
                    found.add(connection.laddr.port)
    return sorted(found)


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)
