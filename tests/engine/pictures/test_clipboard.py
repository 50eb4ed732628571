"""The clipboard: a picture of it is as foreign as any file, and its helper may hang."""

from __future__ import annotations

import os
import stat
import struct
import sys
import time
import zlib
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image, ImageGrab

from dsvl_cli.engine.pictures import clipboard
from dsvl_cli.engine.pictures.clipboard import read_clipboard
from dsvl_cli.errors import DsvlError, ImageError
from tests.engine.drawn_pictures import SIZE, encoded, scene

linux = pytest.mark.skipif(sys.platform != "linux", reason="the helpers of Linux")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HELPERS = {"wl-paste": "WAYLAND_DISPLAY", "xclip": "DISPLAY"}


class Helper:
    """A helper program that offers the types that a test gives contents for."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        script = folder / name
        script.write_text(
            f"#!/bin/sh\ncd {folder}/types\nfor kind; do :; done\n"
            "case $kind in TARGETS|--list-types) ls | tr + /;; *) exec sh ./$(echo $kind | tr / +);; esac"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        (folder / "types").mkdir()

    def offer(self, kind: str, data: bytes, then: str = "") -> None:
        (self.folder / kind.replace("/", "-")).write_bytes(data)
        (self.folder / "types" / kind.replace("/", "+")).write_text(
            f"cat {self.folder / kind.replace('/', '-')}\n{then}\n"
        )


@pytest.fixture(params=HELPERS)
def helper(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    for name in HELPERS.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(HELPERS[request.param], "0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(
        ImageGrab, "grabclipboard", lambda: pytest.fail("Pillow opens any format, and has no time limit")
    )
    return Helper(tmp_path, request.param)


@linux
def test_a_picture_is_read(helper: Helper) -> None:
    helper.offer("image/png", encoded(scene(), "PNG"))
    helper.offer("text/html", b"<img src=x>")
    picture = read_clipboard()
    assert (picture.name, picture.width, picture.height) == ("clipboard", *SIZE)


@linux
@pytest.mark.fault("the clipboard")
def test_no_other_program_is_started_for_a_format(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    eps = encoded(scene().convert("RGB"), "EPS")
    helper.offer("image/x-eps", eps)
    with pytest.raises(DsvlError, match="no picture"):
        read_clipboard()
    helper.offer("image/png", eps)  # under a wrong type
    with pytest.raises(ImageError, match="clipboard"):
        read_clipboard()


@linux
@pytest.mark.fault("the clipboard")
@pytest.mark.parametrize("hangs", ["image/png", "TARGETS"])
def test_a_helper_that_hangs_is_ended(helper: Helper, monkeypatch: pytest.MonkeyPatch, hangs: str) -> None:
    monkeypatch.setattr(clipboard, "DEADLINE_SECONDS", 0.5)
    helper.offer("image/png", encoded(scene(), "PNG"), "sleep 6 & echo $! > ../pid; wait")
    if hangs == "TARGETS":
        os.mkfifo(helper.folder / "types" / "a")
        for name in HELPERS:
            if (helper.folder / name).exists():
                (helper.folder / name).write_text("#!/bin/sh\nsleep 6\n")
    start = time.monotonic()
    with pytest.raises(DsvlError, match="does not answer"):
        read_clipboard()
    assert time.monotonic() - start < 20
    if hangs == "image/png":
        status = Path(f"/proc/{int((helper.folder / 'pid').read_text())}/stat")
        while status.exists() and status.read_text().split(") ")[1][0] != "Z":  # its parent may not wait for it
            assert time.monotonic() - start < 20
            time.sleep(0.01)


@linux
@pytest.mark.fault("the clipboard")
def test_endless_and_huge_pictures_are_errors(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipboard, "MAX_BYTES", 2**20)
    helper.offer("image/png", b"", "yes")
    with pytest.raises(ImageError, match="larger than"):
        read_clipboard()
    head = struct.pack(">4sIIBBBBB", b"IHDR", 40_000, 40_000, 8, 2, 0, 0, 0)
    rest = struct.pack(">I", zlib.crc32(head)) + struct.pack(">I4s", 10, b"IDAT") + bytes(14)
    helper.offer("image/png", PNG_SIGNATURE + struct.pack(">I", 13) + head + rest)
    with pytest.raises(ImageError, match="larger than the limit"):
        read_clipboard()


@linux
def test_without_a_helper_or_a_picture_it_says_what_to_do(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DsvlError, match="no picture") as error:
        read_clipboard()
    assert error.value.hint
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DsvlError, match="cannot be read here") as error:
        read_clipboard()
    assert "wl-clipboard" in str(error.value.hint)


def test_on_a_mac_the_system_makes_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    png = encoded(scene(), "PNG")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(
        clipboard, "_output", lambda command, deadline: b"\xc7data PNGf" + png.hex().encode() + b"\xc8\n"
    )
    assert read_clipboard().data == png
    monkeypatch.setattr(clipboard, "_output", lambda command, deadline: b"")
    with pytest.raises(DsvlError, match="no picture"):
        read_clipboard()


def test_on_windows_pillow_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ImageGrab, "grabclipboard", lambda: Image.new("RGBA", (5, 3), "red"), raising=False)
    assert (read_clipboard().name, read_clipboard().width) == ("clipboard", 5)
    (tmp_path / "a.png").write_bytes(encoded(scene(), "PNG"))
    monkeypatch.setattr(ImageGrab, "grabclipboard", lambda: [str(tmp_path / "a.png")])
    assert read_clipboard().name == str(tmp_path / "a.png")
    for broken in (Image.DecompressionBombError("huge"), OSError("damaged")):

        def fail(error: Exception = broken) -> None:
            raise error

        monkeypatch.setattr(ImageGrab, "grabclipboard", fail)
        with pytest.raises(DsvlError, match="cannot be read"):
            read_clipboard()
