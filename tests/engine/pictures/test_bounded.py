"""Pictures that crash their decoder, never end, or eat all memory become errors, and the others go on."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from dsvl_cli.engine.pictures import bounded, worker
from dsvl_cli.engine.pictures.bounded import BoundedDecoder
from dsvl_cli.engine.pictures.images import decode, picture_from_bytes
from dsvl_cli.errors import ImageError
from tests.batch.malformed import FORMATS, malformed, sound, tiff_strips
from tests.engine.drawn_pictures import encoded, png

FOREIGN = encoded(Image.new("RGB", (30, 20), "red"), "JPEG2000", irreversible=False)


@pytest.fixture
def decoder() -> BoundedDecoder:
    return BoundedDecoder()


@pytest.fixture(autouse=True)
def _close(decoder: BoundedDecoder) -> Iterator[None]:
    yield
    decoder.close()
    for thread in threading.enumerate():
        if thread.name == "dsvl-decoders":
            thread.join()


def hostile(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let processes that are started from now on run some code for each picture whose name is `bad`."""
    lines = ["def bad(data, name, good=worker.decode_bytes):", "    if name == 'bad':", f"        {code}"]
    lines += ["    return good(data, name)", "worker.decode_bytes = bad"]
    patch = "exec({!r})".format("\n".join(lines))
    before, main = worker._MAIN.rsplit("; ", 1)
    monkeypatch.setattr(worker, "_MAIN", f"{before}; {patch}; {main}")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_the_same_from_wherever_it_comes(decoder: BoundedDecoder, kind: str) -> None:
    for n in range(3):
        data = sound(kind, random.Random(n))
        here = picture_from_bytes(data, "x")
        pixels = decode(here).tobytes()
        there = decoder.read(data, "x", careful=True)
        assert there == here
        assert decode(there).tobytes() == pixels


@pytest.mark.fault("malformed pictures", cases=70)
def test_an_error_is_the_same_from_wherever_it_comes(decoder: BoundedDecoder) -> None:
    for name, data in malformed(70):
        outcomes = []
        for careful in (False, True):
            try:
                outcomes.append(repr(decoder.read(data, name, careful=careful)))
            except ImageError as error:
                outcomes.append(f"{error.message} {error.hint}")
        assert outcomes[0] == outcomes[1]


def test_ordinary_pictures_need_no_process(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "Worker", None)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        assert decoder.read(sound(kind, random.Random(1)), kind).width == 120


@pytest.mark.fault("decoders that crash, hang or take all memory")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the decoder crashed"),
        ("import os; os._exit(0)", "the decoder crashed"),
        ("while True: pass", "takes more than 0.5 seconds"),
        ("import time; time.sleep(600)", "did not end within 2 seconds"),
        ("return bytearray(3 * 2**30)", "more than 2.5 GiB of memory"),
        ("raise MemoryError", "more than 2.5 GiB of memory"),
        ("print('noise'); import os; os.write(1, b'noise'); os.write(2, b'noise'); os._exit(1)", "crashed"),
    ],
)
def test_a_picture_that_ends_its_process_is_an_error_and_the_next_is_read(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    hostile(monkeypatch, code)
    if "sleep" in code:
        monkeypatch.setattr(worker, "WALL_SECONDS", 2.0)
    else:
        monkeypatch.setattr(worker, "CPU_SECONDS", 0.5)
    assert decoder.read(FOREIGN, "good").width == 30
    with pytest.raises(ImageError, match=said) as caught:
        decoder.read(FOREIGN, "bad")
    assert caught.value.message.startswith("bad: ")
    assert decoder.read(FOREIGN, "good").width == 30


@pytest.mark.fault("decoders that crash, hang or take all memory")
def test_closing_ends_what_hangs(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile(monkeypatch, "while True: pass")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decoder.read, FOREIGN, "bad")
        while not decoder._busy:
            time.sleep(0.01)
        decoder.close()
        with pytest.raises(ImageError):
            waiting.result(timeout=30)
        with pytest.raises(ImageError):
            pool.submit(decoder.read, FOREIGN, "good").result(timeout=30)


def test_where_no_process_can_be_started_it_decodes_in_place(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert decoder.read(FOREIGN, "x").width == 30
    with pytest.raises(ImageError, match="not tried again"):
        decoder.read(FOREIGN, "x", careful=True)


def test_what_a_process_cannot_import_counts_as_none(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MAIN", "raise SystemExit(1)")
    assert decoder.read(FOREIGN, "x").width == 30


@pytest.mark.fault("planted links and files")
def test_no_module_comes_from_the_current_folder(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("json.py", "PIL.py", "dsvl_cli.py", "sitecustomize.py", "usercustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'came')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert decoder.read(FOREIGN, "x", careful=True).width == 30
    assert not (tmp_path / "came").exists()


@pytest.mark.fault("bombs")
@pytest.mark.parametrize("count", [2**18 + 1, 4 * 2**20])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_of_absurdly_many_strips_is_damaged_at_once(count: int, kind: int, order: str) -> None:
    with pytest.raises(ImageError, match="damaged"):
        picture_from_bytes(tiff_strips(count, kind, order), "x")


@pytest.mark.fault("bombs")
def test_an_absurd_tiff_is_refused_in_little_memory() -> None:
    data = tiff_strips(4 * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            picture_from_bytes(data, "x")
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.fault("bombs")
def test_a_large_picture_needs_two_copies_of_itself_and_no_more() -> None:
    """In a process of its own, whose peak is that of nothing else."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from dsvl_cli.engine.pictures.images import picture_from_bytes as read\n"
        "data = sys.stdin.buffer.read(); read(data[:0] + SMALL, 'x')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); read(data, 'x'); print(peak() - before)"
    ).replace("SMALL", repr(png(1, 1, 8, 6, bytes(5))))
    side = 4000
    data = png(side, side, 8, 6, (b"\0" + b"\1\2\3\4" * side) * side)
    done = subprocess.run([sys.executable, "-c", code], input=data, stdout=subprocess.PIPE, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2.7 * 4 * side * side


def test_the_gate_lets_a_large_one_through_alone() -> None:
    gate = bounded._Gate(100)
    most = [0]
    inside = [0]

    def work(wanted: int) -> None:
        with gate.hold(wanted):
            inside[0] += min(wanted, 100)
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= min(wanted, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 1000, 10, 50, 100, 5] * 10))
    assert 50 < most[0] <= 100
    assert inside == [0]
