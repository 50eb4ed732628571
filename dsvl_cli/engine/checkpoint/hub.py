"""The Hugging Face hub: finding a repository in the local cache, and downloading what is missing.

Everything goes through `huggingface_hub`, so `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` have their
usual meaning. Its progress bars, logs and warnings are suppressed; what matters is reported to the listener.
"""

from __future__ import annotations

import errno
import re
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dsvl_cli.engine.progress import Listener

# Weights in safetensors, configurations, the tokenizer, the chat template. Never code, pickles or other frameworks'
# weights.
NEEDED = ("model*.safetensors", "*.json", "*.jinja")
WAYS_ON = (
    "`--model tiny` needs no download; `--model FOLDER` takes a folder with the model's files; "
    "HF_HOME can point to a cache that has them"
)
_MAKE_ROOM = "free some space, or set HF_HOME to a folder on another disk"
_TIMEOUT = 10.0  # seconds to wait for the hub's first response
_RESERVE = 64 * 2**20  # bytes to leave free on the disk
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_offline() -> bool:
    """Whether the environment forbids connections to the hub (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`)."""
    with _quiet():
        from huggingface_hub import constants

        return constants.HF_HUB_OFFLINE


def find_snapshot(repo: str, revision: str | None) -> Path | None:
    """Return the folder of a repository's revision in the local cache, complete or not, or None if there is none.

    Opens no connection: a branch resolves to the commit of its last download.

    Raises:
        DsvlError: it is not a valid repository name.
    """
    with _quiet():
        from huggingface_hub import errors, try_to_load_from_cache

        try:
            found = try_to_load_from_cache(repo, "config.json", revision=revision)
        except errors.HFValidationError as error:
            raise DsvlError(f"{repo} is not a valid model name on the hub", "write it as org/name") from error
    return Path(found).parent if isinstance(found, str) else None


def download(repo: str, revision: str | None, listener: Listener, accept: Callable[[Path], None]) -> Path:
    """Download the needed files of a repository that the cache lacks; return the folder that has them all.

    The files are downloaded one after another in the calling thread, so Ctrl-C takes effect at once. Complete files
    are kept if a later one fails.

    Args:
        repo: `org/name`.
        revision: a branch, tag or commit; None is the main branch.
        listener: receives the size first, then the progress.
        accept: called with the folder when it has only the small files; raises to reject the model.

    Raises:
        DsvlError: the hub cannot be reached, the repository or revision does not exist or is not accessible, it has no
            safetensors, there is not enough disk space, or the connection is lost.
    """
    with _quiet():
        return _Download(repo, revision, listener).run(accept)


@dataclass(slots=True)
class _Download:
    """A download; `done` and `total` count the bytes of the weights, as the other files are negligible."""

    repo: str
    revision: str | None
    listener: Listener
    done: int = 0
    total: int = 0

    def run(self, accept: Callable[[Path], None]) -> Path:
        commit, sizes = self._list_files()
        folder = self._fetch("config.json", commit).parent
        for name in sorted(sizes):
            if not name.endswith(".safetensors"):
                self._fetch(name, commit)
        accept(folder)

        weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
        missing = [name for name in sorted(weights) if not (folder / name).is_file()]
        if missing:
            self.total = sum(weights.values())
            self.done = self.total - sum(weights[name] for name in missing)
            self._announce()
            for name in missing:
                self._fetch(name, commit, self._advance)
            self.listener.progress(self._what, self.total, self.total)
        if not _COMMIT.fullmatch(self.revision or ""):
            # The branch is only written to the cache now, so it never refers to an incomplete download.
            self._fetch("config.json", self.revision)
        return folder

    def _list_files(self) -> tuple[str, dict[str, int]]:
        """Return the commit, and the sizes in bytes of the needed files by name."""
        from huggingface_hub import HfApi

        try:
            info = HfApi(library_name="dsvl").model_info(
                self.repo, revision=self.revision, timeout=_TIMEOUT, files_metadata=True
            )
        except Exception as error:  # whatever the network stack raises: the hub does not answer
            raise _explain(error, self.repo, self.revision, started=False) from error
        names = {file.rfilename: file.size or 0 for file in info.siblings or []}
        sizes = {name: size for name, size in names.items() if is_needed(name)}
        if info.sha is None or "config.json" not in sizes:
            raise DsvlError(f"{self.repo} is not a model: it has no config.json", "check the model's name")
        if not any(name.endswith(".safetensors") for name in sizes):
            raise DsvlError(
                f"{self.repo} has no safetensors, and dsvl loads no other weights",
                "pickled weights (.bin, .pt) can run code; look for a safetensors version of the model",
            )
        return info.sha, sizes

    def _announce(self) -> None:
        """Report the download size after checking that it fits on the disk."""
        from huggingface_hub import constants

        cache, missing = Path(constants.HF_HUB_CACHE).absolute(), self.total - self.done
        free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
        if missing + _RESERVE > free:
            raise DsvlError(
                f"{self.repo} needs {format_bytes(missing)} of disk space, but {cache} has {format_bytes(free)} free",
                _MAKE_ROOM,
            )
        kept = f" ({format_bytes(self.done)} of {format_bytes(self.total)} already downloaded)" if self.done else ""
        self.listener.note(f"{self._what}: {format_bytes(missing)} to {cache}{kept}")

    @property
    def _what(self) -> str:
        return f"downloading {self.repo}"

    def _advance(self, received: int) -> None:
        self.done += received
        # `done == total` ends the progress; it is reported once, when everything is in place.
        self.listener.progress(self._what, max(0, min(self.done, self.total - 1)), self.total)

    def _fetch(self, name: str, revision: str | None, advance: Callable[[int], None] | None = None) -> Path:
        from huggingface_hub import hf_hub_download

        bar: Any = _make_bar(advance)
        try:
            path = hf_hub_download(
                self.repo, name, revision=revision, library_name="dsvl", etag_timeout=_TIMEOUT, tqdm_class=bar
            )
        except Exception as error:  # as above: httpx, xet and the file system each have their own
            raise _explain(error, self.repo, self.revision, started=True) from error
        return Path(path)


def _explain(error: Exception, repo: str, revision: str | None, *, started: bool) -> DsvlError:
    """Turn an exception of `huggingface_hub` or the layers below it into one clear line."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        message = f"{repo} is a gated model: you need its owners' permission to download it"
        return DsvlError(message, f"request access at {page}, then set HF_TOKEN to your token")
    if isinstance(error, errors.RevisionNotFoundError):
        return DsvlError(f"{repo} has no revision {revision!r}", f"its branches and tags are listed at {page}")
    if isinstance(error, errors.RepositoryNotFoundError):
        message = f"there is no model {repo} on the hub, or it is private"
        return DsvlError(message, "check the spelling; for a private model set HF_TOKEN")
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error.response.status_code, repo)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DsvlError(f"the disk is full: {repo} does not fit into {constants.HF_HUB_CACHE}", _MAKE_ROOM)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DsvlError(f"the cache {constants.HF_HUB_CACHE} is not writable", "set HF_HOME to a writable folder")
    if started:
        message = f"the connection was lost while downloading {repo}"
        return DsvlError(message, "run the command again: complete files are kept")
    return DsvlError(f"{repo} is not on this machine, and the hub ({constants.ENDPOINT}) cannot be reached", WAYS_ON)


def _explain_status(status: int, repo: str) -> DsvlError:
    if status in (401, 403):
        hint = "check HF_TOKEN: is it valid for this model?"
        return DsvlError(f"the hub denies access to {repo} (status {status})", hint)
    if status == 429:
        return DsvlError("too many requests to the hub", "wait a few minutes, or set HF_TOKEN")
    return DsvlError(f"the hub cannot serve {repo} now (status {status})", f"try again later; or: {WAYS_ON}")


def is_needed(name: str) -> bool:
    """Whether a file of a repository is needed to load a model; `name` is its path there."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in NEEDED)


def _make_bar(advance: Callable[[int], None] | None) -> type:
    """Make a tqdm that draws nothing and hands the bytes on."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no thread that looks after what is drawn

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.update(options.get("initial", 0))

        def update(self, n: float | None = 1) -> None:
            if advance is not None:
                advance(int(n or 0))

        # Without these two a bar more is made, for the bytes on the wire, which are not always those of the file.

        def update_transfer(self, n: float | None = 1) -> None:
            """Ignore them; only the file's are counted."""

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None:
            pass

    return Bar


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the library's warnings and log messages; its errors arrive as exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity(CRITICAL)
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
