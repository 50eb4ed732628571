"""A library of kernels for another CPU, used as if `ctypes` had loaded it: each call is a run of an emulator.

`EmulatedLibrary` takes the place of the `ctypes.CDLL` of `NativeKernels`. A call sends the tensors that the arguments
point to, and copies back what the function left in them; driver.c, on the other side, makes the call. Neither knows the
signatures of the kernels. Which tensor a pointer belongs to is found among all tensors that are alive.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_SECONDS = 120


@dataclass
class _Call:
    """The memory and the arguments of a call; regions are (address, size)."""

    tensors: list[tuple[int, int]]
    regions: list[tuple[int, int]] = field(default_factory=list)
    pointers: list[int] = field(default_factory=list)
    integers: list[int] = field(default_factory=list)
    floats: list[int] = field(default_factory=list)

    def add(self, argument: Any) -> None:
        if isinstance(argument, ctypes.Array | ctypes.Structure):
            address, size = ctypes.addressof(argument), ctypes.sizeof(argument)
            region = self._region(address, size)
            for position in range(0, size - 7, 8):
                found = self._find(ctypes.c_uint64.from_address(address + position).value)
                if found is not None:
                    self.pointers += [region, position, *found]
            self.integers += [region, 0]
        elif isinstance(argument, ctypes.c_float):
            self.floats += struct.unpack("<I", struct.pack("<f", argument.value))
        else:
            value = getattr(argument, "value", argument) or 0  # an int, a number of ctypes, or a null pointer
            is_pointer = isinstance(argument, ctypes.c_void_p)
            found = self._find(value) if is_pointer else None
            assert found is not None or not is_pointer or not value, "a pointer to no tensor"
            self.integers += found or (-1, value)

    def _find(self, address: int) -> tuple[int, int] | None:
        """The region and position that an address is in, or None if it is in no tensor."""
        for start, size in self.tensors:
            if start <= address < start + size:
                return self._region(start, size), address - start
        return None

    def _region(self, address: int, size: int) -> int:
        if (address, size) not in self.regions:
            self.regions.append((address, size))
        return self.regions.index((address, size))

    def write(self) -> bytes:
        counts = len(self.regions), len(self.pointers) // 4, len(self.integers) // 2, len(self.floats)
        sizes = [size for _, size in self.regions]
        numbers = [*counts, *sizes, *self.pointers, *self.integers, *self.floats]
        return struct.pack(f"<{len(numbers)}q", *numbers) + b"".join(
            ctypes.string_at(address, size) for address, size in self.regions
        )

    def read(self, output: bytes) -> int:
        """Copy back what the function left in the tensors; returns its result."""
        position = 8
        for address, size in self.regions:
            if (address, size) in self.tensors:
                ctypes.memmove(address, output[position : position + size], size)
            position += size
        assert position == len(output)
        return int(struct.unpack_from("<i", output)[0])


@dataclass(frozen=True)
class EmulatedLibrary:
    """Has every function of the library.

    Attributes:
        command: runs the driver with the library.
        folder: for the files of calls.
    """

    command: Sequence[str]
    folder: Path

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("dsvl_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            prepared = _Call(_list_tensors())
            for argument in arguments:
                prepared.add(argument)
            files = self.folder / "input", self.folder / "output"
            files[0].write_bytes(prepared.write())
            run = subprocess.run(
                [*self.command, name, *map(str, files)], capture_output=True, timeout=_SECONDS, check=False
            )
            assert run.returncode == 0, f"{name}: status {run.returncode}: {run.stderr.decode(errors='replace')}"
            return prepared.read(files[1].read_bytes())

        return call


def _list_tensors() -> list[tuple[int, int]]:
    """The address and the size of the memory of every tensor."""
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
    storages = [one.untyped_storage() for one in tensors if one.device.type == "cpu" and one.layout == torch.strided]
    return sorted({(one.data_ptr(), one.nbytes()) for one in storages if one.nbytes()})
