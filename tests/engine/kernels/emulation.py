"""A library of kernels for another CPU, used as if `ctypes` had loaded it: each call is a run of an emulator.

`EmulatedLibrary` takes the place of the `ctypes.CDLL` of `NativeKernels`. A call sends the tensors that the arguments
point to, and copies back what the function left in them; driver.c, on the other side, makes the call. Neither knows the
signatures of the kernels but from ctypes. Which tensor a pointer belongs to is found among all tensors that are alive.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_SECONDS = 120


@dataclass
class _Call:
    """The memory and the arguments of a call; regions are (address, size)."""

    tensors: list[tuple[int, int]]
    arrays: list[tuple[int, int]]
    regions: list[tuple[int, int]] = field(default_factory=list)
    pointers: list[int] = field(default_factory=list)
    integers: list[int] = field(default_factory=list)
    floats: list[int] = field(default_factory=list)

    def add(self, argument: Any, declared: Any = None) -> None:
        argument = getattr(argument, "_obj", argument)  # of ctypes.byref
        if isinstance(argument, ctypes.Array | ctypes.Structure):
            self.integers += [self._scan(ctypes.addressof(argument), ctypes.sizeof(argument)), 0]
        elif isinstance(argument, ctypes.c_float) or declared is ctypes.c_float:
            value = getattr(argument, "value", argument)
            self.floats += struct.unpack("<I", struct.pack("<f", value))
        else:
            value = getattr(argument, "value", argument) or 0  # an int, a number of ctypes, or a null pointer
            is_pointer = isinstance(argument, ctypes.c_void_p) or declared is ctypes.c_void_p
            found = self._find(value) if is_pointer else None
            assert found is not None or not is_pointer or not value, "a pointer to no tensor"
            self.integers += found or (-1, value)

    def _scan(self, address: int, size: int) -> int:
        """Add the memory of an array or a structure, and all that the pointers in it lead to."""
        is_new = (address, size) not in self.regions
        region = self._region(address, size)
        for position in range(0, size - 7, 8) if is_new else ():
            found = self._find(ctypes.c_uint64.from_address(address + position).value)
            if found is not None:
                self.pointers += [region, position, *found]
        return region

    def _find(self, address: int) -> tuple[int, int] | None:
        """The region and position that an address is in, or None if it is in no tensor and no array of structures."""
        for start, size in self.tensors:
            if start <= address < start + size:
                return self._region(start, size), address - start
        for start, size in self.arrays:
            if start <= address < start + size:
                return self._scan(start, size), address - start
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
        types: of the arguments, by function, as for ctypes; by default those of the arguments themselves.
    """

    command: Sequence[str]
    folder: Path
    types: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("dsvl_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            prepared = _Call(*_list_memory())
            types = self.types.get(name, (None,) * len(arguments))
            for argument, declared in zip(arguments, types, strict=True):
                prepared.add(argument, declared)
            files = self.folder / "input", self.folder / "output"
            files[0].write_bytes(prepared.write())
            run = subprocess.run(
                [*self.command, name, *map(str, files)], capture_output=True, timeout=_SECONDS, check=False
            )
            assert run.returncode == 0, f"{name}: status {run.returncode}: {run.stderr.decode(errors='replace')}"
            return prepared.read(files[1].read_bytes())

        return call


def _list_memory() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The address and the size of the memory of every tensor, and of every array of structures."""
    tensors, arrays = set(), set()
    for one in gc.get_objects():
        kind = type(one)
        if kind in (torch.Tensor, torch.nn.Parameter):
            if one.device.type == "cpu" and one.layout == torch.strided and one.untyped_storage().nbytes():
                tensors.add((one.untyped_storage().data_ptr(), one.untyped_storage().nbytes()))
        elif _holds_structures(kind):
            arrays.add((ctypes.addressof(one), ctypes.sizeof(one)))
    return sorted(tensors), sorted(arrays)


def _holds_structures(kind: type[Any]) -> bool:
    element = getattr(kind, "_type_", None) if issubclass(kind, ctypes.Array) else None
    return isinstance(element, type) and issubclass(element, ctypes.Structure)
