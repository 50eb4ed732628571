"""A process that decodes one picture after another, and that may be killed for what a picture does to it.

It is a fresh interpreter on every platform. It imports this package and Pillow, but never torch: about 40 MB and a
quarter of a second. Requests and replies are frames on its stdin and stdout, each a length of 8 bytes and so many
bytes: a JSON object, and the encoded picture, or the pixels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from dsvl_cli.engine.pictures.images import MAX_CACHED_PIXELS, decode_bytes
from dsvl_cli.errors import ImageError

CPU_SECONDS = 60.0  # a JPEG 2000, the slowest format, takes up to half a second for each megapixel
WALL_SECONDS = 3600.0  # for one that waits instead of working: beside a model, a process of low priority gets little
# The threads of a model wait for each other. Nine small pictures beside four endless ones take 20 s at equal priority,
# and 8 s at the lowest, as they do alone.
_NICENESS = 19
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dsvl_cli.engine.pictures import worker; worker.main()"
)
_IS_LIMITED = sys.platform == "linux"  # elsewhere the kernel does not enforce RLIMIT_AS, so that others have to look


class WorkerDied(Exception):
    """The process ended, or was killed, before it replied; the argument says why, in words for the user."""


class WorkerUnavailable(Exception):
    """No such process can be started here."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a picture.

    Attributes:
        width, height: its size in pixels, upright.
        notes: for the user.
        pixels: RGB; None if they are too many to be kept anyway.
    """

    width: int
    height: int
    notes: tuple[str, ...]
    pixels: bytes | None


class Worker:
    """The process, seen from the other side; for one thread at a time, but `check` and `kill` are for any.

    Raises:
        WorkerUnavailable: it cannot be started.
    """

    def __init__(self) -> None:
        import psutil

        executable = sys.executable
        if sys.platform == "win32":  # in a virtual environment, that one only starts the real one and waits
            executable = getattr(sys, "_base_executable", executable)
        if not executable or getattr(sys, "frozen", False):
            raise WorkerUnavailable
        # `-I` and the explicit path: the current folder may be a stranger's, and must not become a source of modules.
        command = [executable, "-I", "-c", _MAIN, json.dumps([path for path in sys.path if os.path.isabs(path)])]
        options: dict[str, Any] = {"start_new_session": True}  # so that Ctrl-C reaches only the run itself
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            options = {"creationflags": flags | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
            )
        except (OSError, ValueError) as exc:
            raise WorkerUnavailable from exc
        self._in, self._out = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        self._reason = ""
        self._memory = 0
        self._began_at: float | None = None
        self._cpu_before = 0.0
        try:
            read_frame(self._out)
            self._usage = psutil.Process(self._process.pid)
        except (EOFError, psutil.Error) as exc:
            self.close()
            raise WorkerUnavailable from exc

    def decode(self, data: bytes, name: str, memory: int) -> Decoded:
        """Decode a picture with so many bytes of memory.

        Raises:
            ImageError: it cannot be decoded.
            MemoryError: it needs more memory.
            WorkerDied: the process is gone.
        """
        self._memory = memory
        self._cpu_before = self._cpu_seconds()
        self._began_at = time.monotonic()
        try:
            write_frame(self._in, json.dumps({"name": name, "memory": memory}).encode())
            write_frame(self._in, data)
            self._in.flush()
            reply = json.loads(read_frame(self._out))
            pixels = read_frame(self._out)
        except (OSError, EOFError, ValueError) as exc:
            self.kill("")
            if self._reason == "memory":
                raise MemoryError from exc
            raise WorkerDied(self._reason or "the decoder crashed") from exc
        finally:
            self._began_at = None
        if reply["is_short_of_memory"]:
            raise MemoryError
        if reply["error"] is not None:
            raise ImageError(reply["error"], reply["hint"])
        return Decoded(reply["width"], reply["height"], tuple(reply["notes"]), pixels or None)

    @property
    def is_alive(self) -> bool:
        """Whether it can take another picture."""
        return not self._reason and self._process.poll() is None

    def check(self) -> None:
        """Kill the process if it has been at its picture for too long, or takes too much memory."""
        began_at = self._began_at
        if began_at is None:
            return
        if self._cpu_seconds() - self._cpu_before > CPU_SECONDS:
            self.kill(f"decoding takes more than {CPU_SECONDS:g} seconds")
        elif time.monotonic() - began_at > WALL_SECONDS:
            self.kill(f"decoding did not end within {WALL_SECONDS:g} seconds")
        elif not _IS_LIMITED and self._memory and self._resident_bytes() > self._memory:
            self.kill("memory")

    def kill(self, reason: str) -> None:
        """End the process."""
        self._reason = self._reason or reason
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)

    def close(self) -> None:
        """End the process and close its pipes; the thread that uses it must have come back."""
        self.kill("closed")
        for stream in (self._in, self._out):
            with suppress(OSError):
                stream.close()

    def _cpu_seconds(self) -> float:
        import psutil

        try:
            times = self._usage.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _resident_bytes(self) -> int:
        import psutil

        try:
            return int(self._usage.memory_info().rss)
        except psutil.Error:
            return 0


def main() -> None:
    """Serve until stdin ends."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no reply
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    _warm_up()
    base = _address_space()
    write_frame(sink, b"")
    sink.flush()
    while True:
        try:
            request = json.loads(read_frame(source))
            data = read_frame(source)
        except EOFError:
            return
        _limit(base + request["memory"])
        header, pixels = _serve(data, request["name"])
        _limit(None)
        write_frame(sink, json.dumps(header).encode())
        write_frame(sink, pixels)
        sink.flush()


def _serve(data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {"is_short_of_memory": False, "error": None, "hint": None}
    try:
        image, notes = decode_bytes(data, name)
        header.update(width=image.width, height=image.height, notes=notes)
        return header, image.tobytes() if image.width * image.height <= MAX_CACHED_PIXELS else b""
    except ImageError as error:
        is_short = isinstance(error.__cause__, MemoryError)
        return {**header, "is_short_of_memory": is_short, "error": error.message, "hint": error.hint}, b""
    except MemoryError:
        return {**header, "is_short_of_memory": True}, b""


def _warm_up() -> None:
    """Import what decoding imports, so that it does not count as a picture's memory."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.init()


def _address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _limit(address_space: int | None) -> None:
    """Limit the memory, and the processor time in case that nobody is left to look at it; None lifts both."""
    try:
        import resource
    except ImportError:  # Windows
        return
    cpu = resource.RLIM_INFINITY
    if address_space is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = int(usage.ru_utime + usage.ru_stime + 2 * CPU_SECONDS)
    wanted = {resource.RLIMIT_CPU: cpu}
    if _IS_LIMITED:
        wanted[resource.RLIMIT_AS] = resource.RLIM_INFINITY if address_space is None else address_space
    for kind, soft in wanted.items():
        hard = resource.getrlimit(kind)[1]
        within = soft if hard == resource.RLIM_INFINITY else hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (within, hard))


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Write the length and the bytes."""
    stream.write(len(data).to_bytes(8, "big"))
    stream.write(data)


def read_frame(stream: BinaryIO) -> bytes:
    """Read a length and so many bytes.

    Raises:
        EOFError: the stream ends before.
    """
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    size = int.from_bytes(head, "big")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
