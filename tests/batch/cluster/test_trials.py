"""A picture that ends the process of its worker is found, and becomes an error row; the others are answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.trials import MOST_ENDED, BlockTrials
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.errors import DsvlError


class Ended(BaseException):
    """Stands for the end of the process."""


def caption(killers: set[str]) -> object:
    def run(items: Iterable[Item]) -> Iterator[Row]:
        for item in items:
            try:
                item.read()
            except DsvlError as error:
                yield Row(item.id, item.path, {ONLY: "?"}, error=Failure(type(error).__name__, error.message))
                continue
            if item.id in killers:
                raise Ended
            yield Row(item.id, item.path, {ONLY: "?"}, {ONLY: Answer(item.path, "stop")})

    return run


def items(count: int) -> list[Item]:
    return [Item(str(number), f"{number}.png", lambda: [b""]) for number in range(count)]


def run_until_done(place: Place, killers: set[str], count: int = 6) -> tuple[list[Row], int]:
    """Work on a block as often as a worker has to be started; return its rows, and how many workers ended."""
    for ended in range(50):
        try:
            return list(BlockTrials(place, caption(killers)).run(items(count))), ended  # type: ignore[arg-type]
        except Ended:
            continue
    raise AssertionError("it never ends")


@pytest.mark.fault("a picture that ends a worker of a cluster")
@pytest.mark.parametrize("killers", [{"0"}, {"3"}, {"5"}, {"1", "2"}, {"0", "1", "2", "3", "4", "5"}])
def test_each_that_ends_a_process_is_given_up_and_no_other(tmp_path: Path, killers: set[str]) -> None:
    place = Place.open(str(tmp_path))
    rows, ended = run_until_done(place, killers)
    assert [row.id for row in rows] == [str(number) for number in range(6)]
    assert {row.id for row in rows if row.status == "error"} == killers
    assert all("given up" in row.error.message for row in rows if row.error)
    assert ended == 1 + MOST_ENDED * len(killers)
    # Another run knows them, in whatever block they are.
    rows, ended = run_until_done(place, killers, 7)
    assert ended == 0
    assert {row.id for row in rows if row.status == "error"} == killers


def test_a_lost_machine_is_no_fault_of_a_picture(tmp_path: Path) -> None:
    place = Place.open(str(tmp_path))
    with pytest.raises(Ended):
        list(BlockTrials(place, caption({"3"})).run(items(6)))  # type: ignore[arg-type]
    rows, ended = run_until_done(place, set())
    assert (ended, [row.status for row in rows]) == (0, ["answered"] * 6)
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_was_cut_off_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "block-0-5-6.json").write_bytes(b'{"now": "3"')
    rows, ended = run_until_done(Place.open(str(tmp_path)), set())
    assert (ended, len(rows)) == (0, 6)
