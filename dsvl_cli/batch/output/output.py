"""Destinations of rows: a file from which later runs resume, or a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.aside import Aside
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.formats import Format
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.known_ids import KnownIds
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.output.sinks import JournalOnly, Sink
from dsvl_cli.batch.output.trials import Trials
from dsvl_cli.batch.quality import RETRY_SAMPLES, RETRY_SAMPLING
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.sources.scan import JOURNAL_SUFFIX, SETTINGS_SUFFIX
from dsvl_cli.engine.pictures.signatures import is_picture_start
from dsvl_cli.engine.storage.files import find_leftovers, open_regular, remove_leftovers
from dsvl_cli.engine.storage.locks import PathLock
from dsvl_cli.errors import DsvlError, SomeFailed


class KeptOutput:
    """An output that a later run of the same command resumes; a context manager.

    Rows belong to files, however their paths are spelled: an id in the journal that is a path stands for the same file
    as every other spelling of it. Relative ones refer to the folder in which the first run was started.

    Args:
        path: OUT as the user named it.
        format: the format of OUT.
        sink: derives OUT from the journal.
        settings: the settings for new rows.
        overwrite: start over. The existing rows are set aside until the new ones are complete, and come back if there
            are none.
        retry_errors, retry_suspect: redo rows of that status.

    Attributes:
        settings: the given settings with the format, and with the earlier run's seed if it was chosen at random.

    Raises:
        DsvlError: on entering, if another run is writing the output, or it was made with different settings.
    """

    def __init__(
        self,
        path: Path,
        format: Format,  # noqa: A002
        sink: Sink,
        settings: Settings,
        *,
        overwrite: bool = False,
        retry_errors: bool = False,
        retry_suspect: bool = False,
    ) -> None:
        self.shown = path
        self.path = Path(os.path.realpath(path))
        self.settings = replace(settings, format=format)
        self._format = format
        self._sink = sink
        self._overwrite = overwrite
        self._again = {status for status, wanted in (("error", retry_errors), ("suspect", retry_suspect)) if wanted}
        self._is_changed = False
        self._is_new = False
        self._stale: set[str] = set()
        self._lock = PathLock(lock_path_of(self.path))
        self.journal = Journal(journal_path(self.path, format), self._load)
        files = (self.journal.path, settings_path_of(self.path), _journal_beside(self.path))
        self._aside = Aside(self.path, tuple(dict.fromkeys(files)))
        self._ids = KnownIds(self.path.parent)
        self.trials = Trials(trials_path_of(self.path))

    def __enter__(self) -> KeptOutput:
        self._check_before_touching()
        with explained(self.shown):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.islink(self._lock.path):
                raise DsvlError(f"{self._lock.path} is a link, which dsvl does not make", "remove it")
            if not self._lock.acquire():
                raise DsvlError(
                    f"another dsvl is writing {self.shown}", "wait until it has finished, or write elsewhere with -o"
                )
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _check_before_touching(self) -> None:
        if self.shown.is_symlink() and not self.shown.exists():
            raise DsvlError(f"{self.shown} is a link to a file that does not exist", "name the file itself")
        if not self.path.parent.is_dir() or self._aside.exists():
            return
        if self._overwrite:
            self._check_replaceable()
        else:
            self._check()

    def _begin(self) -> None:
        own = (self.path, self.journal.path, settings_path_of(self.path))
        self._is_new = not any(map(os.path.lexists, own)) and not self._aside.exists()
        remove_leftovers(find_leftovers(self.path.parent), *own)
        if not _has_content(self.journal.path):  # killed between the old rows and the first new one
            with explained(self.shown):
                self._aside.restore()
        if self._overwrite:
            self._check_replaceable()
            with explained(self.shown):
                self._aside.put()
        if self._overwrite or not self._check():
            self.settings = replace(self.settings, base=self._ids.base_for_settings())
            self.settings.write(settings_path_of(self.path))
        changed_at = _changed_at(self.journal.path)
        self.journal.__enter__()
        try:
            self._sink.begin(self.journal, changed_at)
            with explained(self.shown):
                self.trials.open()
        except BaseException:
            self.journal.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)
        with suppress(OSError):
            self.trials.close()
            if self._overwrite and not len(self.journal):
                self._aside.restore()
            elif error is None or isinstance(error, SomeFailed):
                self._aside.drop()
            if self._is_new and error is not None and not len(self.journal):
                for path in (self.path, self.journal.path, settings_path_of(self.path)):
                    if not path.is_dir():
                        path.unlink(missing_ok=True)  # there is nothing to resume
        self._lock.release()

    def peek(self) -> None:
        """Load what exists without changing anything, for dry runs; use instead of entering.

        Raises:
            DsvlError: entering would fail because of what exists.
        """
        if self._overwrite:
            return
        self._check()
        self.journal.peek()

    def mark_stale(self, ids: Iterable[str]) -> None:
        """Redo the rows of these ids too, whatever becomes of them."""
        self._stale.update(ids)

    def select(self, item: Item) -> Item | None:
        """Return the item as it should be processed, or None if its row is complete. Thread-safe.

        The item gets the id of the row that it has already.
        """
        id_ = self._ids.find(item, self.journal)
        status = self.journal.status(id_)
        if status is not None and status not in self._again and id_ not in self._stale:
            return None
        if not self._sink.takes(item, id_) and status is None:
            return None
        is_suspect = status == "suspect" and id_ not in self._stale
        other = RETRY_SAMPLES if (item.samples or self.settings.samples) > 1 else RETRY_SAMPLING
        sampling = {**item.sampling, **other} if is_suspect else item.sampling
        prompts = None
        if self._format == "txt" and status in ("answered", "suspect"):
            # Its text may have taken the place of the caption that its prompt was made with.
            prompts = self.journal.read(id_).prompts
        return replace(item, id=id_, sampling=sampling, prompts=prompts)

    def write(self, row: Row) -> None:
        """Store a row.

        Raises:
            DsvlError: it cannot be written.
        """
        status = self.journal.status(row.id)
        if status == "suspect" and row.error is not None and row.id not in self._stale:
            return  # a suspect answer is better than none
        before = self.journal.read(row.id) if status is not None else None
        self.journal.append(row, **self._sink.more(row))
        self._is_changed = True
        if not isinstance(self._sink, JournalOnly):
            self.journal.sync()  # otherwise a power failure could leave a text without its row
        self._sink.write(row, before)

    def finish(self) -> None:
        """Sync everything to disk and write tables.

        Raises:
            DsvlError: it cannot be written.
        """
        if self._overwrite and not len(self.journal):
            return  # the old rows come back
        self.journal.tidy()
        self._sink.finish(self.journal, self._is_changed)

    def _check(self) -> bool:
        """Return whether there are rows to resume; raise DsvlError if they do not match these settings."""
        stored = Settings.read(settings_path_of(self.path))
        if not any(map(_has_content, (self.path, _journal_beside(self.path)))):
            return False
        if stored is not None:
            self._ids.set_base(stored.base)
            self.settings = self.settings.with_seed_of(stored)
            if found := self.settings.differences(stored):
                raise DsvlError(
                    f"{self.shown} was made with different settings; now: {', '.join(found)}",
                    "write elsewhere with -o, or start over with --overwrite",
                )
        if stored is None or not _has_content(self.journal.path):
            self._check_replaceable()  # otherwise the hint would lead to that refusal
            raise DsvlError(
                f"{self.shown} already exists and is not from `dsvl batch`",
                "write elsewhere with -o, or replace it with --overwrite",
            )
        return True

    def _check_replaceable(self) -> None:
        """Refuse to start over what is no output, but somebody's pictures, or a file elsewhere that a link leads to."""
        if settings_path_of(self.path).is_file() or not os.path.lexists(self.path) or self._format == "txt":
            return
        if self.shown.is_symlink():
            raise DsvlError(f"{self.shown} is a link to something that is not from `dsvl batch`", "name another file")
        with explained(self.shown, "read"), open_regular(self.path) as file:
            beginning = file.read(64)
        if is_picture_start(beginning) or (beginning.startswith(b"PAR1") and self._format != "parquet"):
            raise DsvlError(f"{self.shown} holds pictures; --overwrite replaces only rows", "name another file")

    def _load(self, fields: Mapping[str, Any]) -> None:
        self._ids.note(fields["id"], fields["path"])
        self._sink.load(fields)


class StreamOutput:
    """Writes rows to a stream as they come; nothing is stored, so every item is processed.

    Args:
        stream: a binary stream.
        name: the name of the stream in messages.
        to_line: encodes a row, including the line ending.
    """

    def __init__(self, stream: BinaryIO, name: str, to_line: Callable[[Row], bytes]) -> None:
        self._stream = stream
        self._name = name
        self._to_line = to_line

    def select(self, item: Item) -> Item | None:
        """Return every item."""
        return item

    def write(self, row: Row) -> None:
        """Write a row immediately.

        Raises:
            BrokenPipeError: the reader has closed the stream.
            DsvlError: it cannot be written.
        """
        with explained(self._name):
            self._stream.write(self._to_line(row))
            self._stream.flush()

    def finish(self) -> None:
        """Do nothing: rows are written immediately."""


def journal_path(path: Path, format: str | None) -> Path:  # noqa: A002
    """Return the path of an output's journal."""
    return path if format == "jsonl" else _journal_beside(path)


def settings_path_of(path: Path) -> Path:
    """Return the path of an output's settings."""
    return path.with_name(path.name + SETTINGS_SUFFIX)


def lock_path_of(path: Path) -> Path:
    """Return the path of the lock of an output."""
    return path.with_name(f".{path.name}.dsvl-lock")


def trials_path_of(path: Path) -> Path:
    """Return the path of the file with the pictures that are being decoded."""
    return path.with_name(f".{path.name}.dsvl-trials")


def written_paths(path: Path, format: str) -> list[Path]:  # noqa: A002
    """Return what a run with this output writes, apart from text files."""
    real = Path(os.path.realpath(path))
    files = {journal_path(real, format), settings_path_of(real), lock_path_of(real), trials_path_of(real)}
    return sorted(files if format == "txt" else {real, *files})


def _journal_beside(path: Path) -> Path:
    return path.with_name(path.name + JOURNAL_SUFFIX)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
