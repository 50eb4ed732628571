"""Reads the picture on the clipboard, as untrusted as any file: another program, or a web page, put it there.

On Linux and macOS, a helper program gives its bytes, which go through the reader of picture files. Pillow's own
function would open whatever format they have, starting Ghostscript for EPS, and wait for a helper that never answers.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.pictures.images import MAX_BYTES, picture_from_bytes, read_picture
from dsvl_cli.errors import DsvlError, ImageError

DEADLINE_SECONDS = 5.0
# What a picture is asked for as, the best first. Nothing else is taken, such as image/x-eps.
_TYPES = ("image/png", "image/jpeg", "image/webp", "image/avif", "image/gif", "image/bmp", "image/tiff")
_NAME = "clipboard"


def read_clipboard() -> Picture:
    """Return the picture on the clipboard.

    Raises:
        DsvlError: there is none, it cannot be read, or this platform gives no access to the clipboard.
    """
    if sys.platform == "win32":
        return _read_windows()
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        data = _read_mac(deadline) if sys.platform == "darwin" else _read_linux(os.environ, deadline)
    except TimeoutError as exc:
        raise DsvlError("the clipboard does not answer", "save the picture to a file, or drop one") from exc
    except OSError as exc:
        raise DsvlError(f"the clipboard cannot be read: {exc.strerror}", "drop a file instead") from exc
    if not data:
        raise DsvlError("there is no picture in the clipboard", "copy one, then press Ctrl-V again")
    return picture_from_bytes(data, _NAME)


def _read_linux(variables: Mapping[str, str], deadline: float) -> bytes:
    for present, program, list_types, read in (
        ("WAYLAND_DISPLAY", "wl-paste", ["--list-types"], lambda kind: ["--no-newline", "--type", kind]),
        ("DISPLAY", "xclip", ["-selection", "clipboard", "-out", "-target", "TARGETS"],
         lambda kind: ["-selection", "clipboard", "-out", "-target", kind]),
    ):  # fmt: skip
        path = shutil.which(program) if variables.get(present) else None
        if path is not None:
            return _read_best(path, list_types, read, deadline)
    raise DsvlError(
        "the clipboard cannot be read here", "install wl-clipboard (Wayland) or xclip (X11), or drop a file"
    )


def _read_best(program: str, list_types: Sequence[str], read: Callable[[str], Sequence[str]], deadline: float) -> bytes:
    offered = _output([program, *list_types], deadline).decode("ascii", "replace").split()
    kind = next((kind for kind in _TYPES if kind in offered), None)
    return b"" if kind is None else _output([program, *read(kind)], deadline)


def _read_mac(deadline: float) -> bytes:
    """Return a PNG: the system converts other formats, and AppleScript shows its bytes as `«data PNGf89504E...»`."""
    text = _output(["/usr/bin/osascript", "-e", "get the clipboard as «class PNGf»"], deadline)
    digits = text.partition(b"PNGf")[2].strip()
    with contextlib.suppress(ValueError):
        return bytes.fromhex(digits.decode("ascii", "ignore"))
    return b""


def _output(command: Sequence[str], deadline: float) -> bytes:
    """Return what a program writes, at most a picture's largest size; it is killed at the deadline.

    Raises:
        TimeoutError: it has not ended by then.
        ImageError: it writes more.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    data = bytearray()
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(process.stdout.fileno(), 2**20)
                if not piece:
                    return bytes(data)
                data += piece
                if len(data) > 3 * MAX_BYTES:  # two digits for a byte on macOS
                    raise ImageError(f"{_NAME}: larger than the limit of {MAX_BYTES // 2**20} MiB")
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def _read_windows() -> Picture:
    """Read it by Pillow, which there needs no helper and takes only DIB and PNG."""
    from PIL import Image, ImageGrab

    try:
        found = ImageGrab.grabclipboard()
    except Exception as exc:  # a huge or damaged picture can make Pillow raise almost anything
        raise DsvlError("the picture in the clipboard cannot be read", "save it to a file first, or drop one") from exc
    if isinstance(found, list) and found:
        return read_picture(found[0])
    if not isinstance(found, Image.Image):
        raise DsvlError("there is no picture in the clipboard", "copy one, then press Ctrl-V again")
    buffer = io.BytesIO()
    found.save(buffer, "PNG")
    return picture_from_bytes(buffer.getvalue(), _NAME)
