"""What a cluster's job writes: shards of rows in OUT, and beside it OUT.dsvl with what the job needs to resume.

    OUT/*.parquet or *.jsonl     the rows, some thousand per shard
    OUT.dsvl/settings.json       what the rows depend on besides their pictures
    OUT.dsvl/manifest/           the pictures with their numbers and addresses
    OUT.dsvl/checkpoint/         the numbers of the pictures that have a row; written by Ray
    OUT.dsvl/trials/             which pictures are being asked about, in case one of them ends the process

A shard counts once its checkpoint is committed: what a killed job leaves is removed by Ray when the job is resumed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.output.output import lock_path_of
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.row import FIELDS, ONLY, Row, Status
from dsvl_cli.engine.storage.locks import PathLock
from dsvl_cli.errors import DsvlError

STATE_SUFFIX = ".dsvl"
_PENDING = ".pending.parquet"
_DETAILS = ("finish_reason", "prompt_tokens", "tokens", "seconds")


class ClusterOutput:
    """An output that a later run of the same command resumes; a context manager that locks it, if it is on a disk.

    Args:
        rows: OUT.
        settings: those of the new rows, with their format.

    Attributes:
        settings: the given settings, with the seed and the folder of the first run.

    Raises:
        DsvlError: on entering, if another run is writing the output, or it was made with different settings.
    """

    def __init__(self, rows: Place, settings: Settings) -> None:
        self.rows = rows
        self.state = rows.beside(STATE_SUFFIX)
        self.settings = settings
        self._lock = PathLock(lock_path_of(Path(rows.path))) if rows.is_local else None

    @property
    def manifest(self) -> Place:
        """The folder of the manifest."""
        return self.state.within("manifest")

    @property
    def checkpoint(self) -> Place:
        """The folder of the checkpoint."""
        return self.state.within("checkpoint")

    @property
    def trials(self) -> Place:
        """The folder of the trials."""
        return self.state.within("trials")

    def __enter__(self) -> ClusterOutput:
        self._check()
        if self._lock is not None:
            with self.rows.explained("written"):
                os.makedirs(os.path.dirname(self.rows.path), exist_ok=True)
                is_free = self._lock.acquire()
            if not is_free:
                raise DsvlError(
                    f"another dsvl is writing {self.rows.shown}",
                    "wait until it has finished, or write elsewhere with -o",
                )
        try:
            is_new = self._check()
            for place in (self.rows, self.manifest, self.checkpoint, self.trials):
                place.make()
            if is_new:
                self._settings_file.write(self.settings.encode())
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    @property
    def _settings_file(self) -> Place:
        return self.state.within("settings.json")

    def _check(self) -> bool:
        """Return whether the output is new.

        Raises:
            DsvlError: it was made with other settings, or is not from `dsvl batch`.
        """
        if self.rows.is_local and os.path.lexists(self.rows.path) and not os.path.isdir(self.rows.path):
            raise DsvlError(f"{self.rows.shown} is a file, but --engine ray writes a folder", "name a folder with -o")
        data = self._settings_file.read()
        if data is None:
            if self.rows.files():
                raise DsvlError(
                    f"{self.rows.shown} already exists and is not from `dsvl batch --engine ray`",
                    "write elsewhere with -o",
                )
            self.settings = replace(self.settings, base=os.path.realpath(os.curdir))
            return True
        stored = Settings.decode(data, self._settings_file.shown)
        self.settings = replace(self.settings.with_seed_of(stored), base=stored.base or os.path.realpath(os.curdir))
        found = self.settings.differences(stored)
        if found and not self.count_committed() and not self.rows.files():
            return True  # no row has been made with them
        if found:
            raise DsvlError(
                f"{self.rows.shown} was made with different settings; now: {', '.join(found)}",
                "write elsewhere with -o",
            )
        return False

    def count_committed(self) -> int:
        """Return the number of pictures that have a row."""
        import pyarrow.parquet as pq

        with self.checkpoint.explained("read"):
            return sum(
                pq.read_metadata(str(info.path), filesystem=self.checkpoint.filesystem).num_rows
                for info in self._committed()
            )

    def checkpoint_bytes(self) -> int:
        """Return the size of the checkpoint."""
        return sum(info.size or 0 for info in self.checkpoint.files())

    def _committed(self) -> list[Any]:
        return [info for info in self.checkpoint.files() if not str(info.path).endswith(_PENDING)]

    def shards(self) -> list[str]:
        """Return the paths of the shards that count."""
        committed = {_stem(info.path) for info in self._committed()}
        return [str(info.path) for info in self.rows.files() if _stem(info.path) in committed]

    def count(self) -> Counter[Status]:
        """Return the numbers of rows by status."""
        import pyarrow.parquet as pq

        counts: Counter[Status] = Counter()
        with self.rows.explained("read"):
            for path in self.shards():
                if self.settings.format == "parquet":
                    table = pq.read_table(path, columns=["status"], filesystem=self.rows.filesystem)
                    counts.update(table.column("status").to_pylist())
                else:
                    counts.update(json.loads(line)["status"] for line in self._lines(path))
        return counts

    def read_rows(self) -> Iterator[Row]:
        """Yield all rows, shard by shard. Rows out of tables lack what a table has no column for."""
        import pyarrow.parquet as pq

        with self.rows.explained("read"):
            for path in self.shards():
                if self.settings.format == "jsonl":
                    yield from map(Row.from_json, self._lines(path))
                    continue
                for batch in pq.ParquetFile(path, filesystem=self.rows.filesystem).iter_batches(1000):
                    yield from (self._row(fields) for fields in batch.to_pylist())

    def _lines(self, path: str) -> Iterator[bytes]:
        with self.rows.filesystem.open_input_file(path) as file:
            yield from filter(None, file.read().split(b"\n"))

    def _row(self, fields: Mapping[str, Any]) -> Row:
        if tuple(self.settings.prompts) == (ONLY,):
            return Row.from_fields({name: fields[name] for name in FIELDS})
        names = [name for name in self.settings.prompts if fields[name] is not None]
        # Which of the answers is suspect is in the text.
        nothing = dict.fromkeys((*_DETAILS, "suspicion"))
        answers = {name: {**nothing, "text": str(fields[name])} for name in names}
        if names:
            answers[names[0]].update({name: fields[name] for name in _DETAILS if name in fields})
            answers[names[0]]["suspicion"] = (fields["suspicion"] or "").removeprefix(f"{names[0]}: ") or None
        return Row.from_fields({**fields, "prompts": self.settings.prompts, "answers": answers})


def _stem(path: str) -> str:
    return os.path.basename(path).rpartition(".")[0]
