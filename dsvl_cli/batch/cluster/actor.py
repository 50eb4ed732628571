"""What a worker of a cluster does: it loads the model once and turns pictures into rows with the batch's captioner.

One place decides what a row is, `dsvl_cli.batch.captioner`; this module only brings its items there and its rows back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from dsvl_cli.batch.captioner import Captioner
from dsvl_cli.batch.cluster.manifest import decode
from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.reading import to_item
from dsvl_cli.batch.cluster.trials import BlockTrials
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.row import Row
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.errors import DsvlError, ImageError

if TYPE_CHECKING:
    import pyarrow

_REPORT_SECONDS = 1.0
_MOST_MESSAGES = 10  # of errors, per report


class Caption(Protocol):
    """Turns items into rows."""

    def __call__(self, items: Iterable[Item]) -> Iterator[Row]:
        """Yield a row for each item."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know; can be sent to other machines.

    Attributes:
        load: how to load the model.
        settings: what the rows depend on.
        batch_size: the number of answers at a time; None for an automatic one.
        trials: the folder of the trials.
        make: makes the captioner of a worker; tests and measurements have their own.
    """

    load: LoadOptions
    settings: Settings
    batch_size: int | None
    trials: Place
    make: Callable[[Work, Callable[[Mapping[str, str], Item], Mapping[str, str]]], Caption]


@dataclass(slots=True)
class Share:
    """How much of a block is done.

    Attributes:
        answered, suspect, failed: the numbers of its rows.
        messages: what is wrong with some of the failed ones.
        notes: what is to be said about the pictures.
        is_complete: whether all of it is done.
    """

    answered: int = 0
    suspect: int = 0
    failed: int = 0
    messages: list[str] = field(default_factory=list)
    is_complete: bool = False

    def add(self, row: Row) -> None:
        """Count a row."""
        if row.error is not None:
            self.failed += 1
            if len(self.messages) < _MOST_MESSAGES:
                message = row.error.message
                self.messages.append(message if message.startswith(row.path) else f"{row.path}: {message}")
        elif row.suspicion is not None:
            self.suspect += 1
        else:
            self.answered += 1


class CaptionBlock:
    """The function of an actor; called with tables of `read_pictures`, it returns tables of `number` and `row`.

    Args:
        work: what to do.
        tell: called with the name of a block and how much of it is done.
    """

    def __init__(self, work: Work, tell: Callable[[str, Share], None]) -> None:
        self._unfilled: dict[str, str] = {}
        self._tell = tell
        self._trials = BlockTrials(work.trials, work.make(work, self._fill))

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Return the rows of a block, as lines of JSON."""
        import pyarrow as pa

        found = {str(row["number"]): row for row in batch.to_pylist()}
        self._unfilled = {number: row["unfilled"] for number, row in found.items() if row["unfilled"] is not None}
        numbers: list[int] = []
        lines: list[bytes] = []
        share, name, told_at = Share(), f"{next(iter(found), '')}-{len(found)}", time.monotonic()
        for row in self._trials.run([to_item(row) for row in found.values()]) if found else ():
            numbers.append(int(row.id))
            line = replace(row, id=decode(found[row.id]["id"]))
            lines.append(line.to_line())
            share.add(line)
            if time.monotonic() - told_at >= _REPORT_SECONDS:
                told_at = time.monotonic()
                self._tell(name, share)
        share.is_complete = True
        self._tell(name, share)
        schema = pa.schema([("number", pa.int64()), ("row", pa.large_binary())])
        return pa.table({"number": numbers, "row": lines}, schema=schema)

    def _fill(self, prompts: Mapping[str, str], item: Item) -> Mapping[str, str]:
        """Return the prompts of an item: whoever read its picture has filled in those with variables."""
        if (message := self._unfilled.get(item.id)) is not None:
            raise ImageError(message)
        return prompts


def make_captioner(work: Work, fill: Callable[[Mapping[str, str], Item], Mapping[str, str]]) -> Caption:
    """Load the model and return the captioner of a worker.

    Raises:
        DsvlError: the model cannot be loaded, or is another one on this machine.
    """
    from dsvl_cli.engine.checkpoint.find import find_checkpoint
    from dsvl_cli.engine.model import load_model
    from dsvl_cli.engine.progress import Silence

    settings = work.settings
    checkpoint = find_checkpoint(work.load, Silence())
    if checkpoint.fingerprint != settings.fingerprint:
        raise DsvlError(
            f"{checkpoint.name} on {os.uname().nodename} is not the model of this job",
            "give all machines the same files, or name a revision with --revision",
        )
    with _packing_turn(work.load):
        model = load_model(work.load, Silence(), checkpoint)
    return Captioner.of(model, settings, work.batch_size, fill=fill)


def _packing_turn(load: LoadOptions) -> Any:
    """Let the workers of one machine quantize in turn: the first packs the weights, and the others find them."""
    from contextlib import nullcontext

    if load.quantization is None:
        return nullcontext()
    from filelock import FileLock

    from dsvl_cli.engine.storage.cache_folder import packed_weights_folder
    from dsvl_cli.engine.storage.private import make_private_folder

    folder = packed_weights_folder().path
    try:
        make_private_folder(folder)
    except (OSError, DsvlError):
        return nullcontext()  # nothing is kept there, then
    return FileLock(folder / "packing.lock")
