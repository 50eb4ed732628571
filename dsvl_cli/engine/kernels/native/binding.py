"""The functions of kernels.c for Python: structures and argument types, declared once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from dsvl_cli.engine.kernels.stored_weights import Weight

_Pointer, _Int, _Long, _Float = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float


class NativeLinear(ctypes.Structure):
    """`struct linear`: a stored weight."""

    _fields_ = (("kind", _Long), ("outs", _Long), ("columns", _Long), ("data", _Pointer), ("scales", _Pointer))

    @classmethod
    def of(cls, weight: Weight) -> NativeLinear:
        """Refer to a weight, which must be kept alive."""
        scales = None if weight.scales is None else address(weight.scales)
        return cls(int(weight.kind), *weight.shape, address(weight.data), scales)


_LINEARS = ("query", "key", "value", "output", "gate", "up", "down")


class NativeLayer(ctypes.Structure):
    """`struct layer`."""

    _fields_ = (
        ("attention_norm", _Pointer),
        ("feed_forward_norm", _Pointer),
        *((name, NativeLinear) for name in _LINEARS),
    )


_SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocabulary", "cache_kind")


class NativeModel(ctypes.Structure):
    """`struct model`."""

    _fields_ = (
        *((name, _Long) for name in _SIZES),
        ("epsilon", ctypes.c_double),
        ("frequencies", _Pointer),
        ("norm", _Pointer),
        ("layer", ctypes.POINTER(NativeLayer)),
        ("head", NativeLinear),
    )


# The result and the arguments of each function.
FUNCTIONS = {
    "dsvl_linear": (None, _Int, _Pointer, _Pointer, _Long, _Pointer, _Pointer, _Int),
    "dsvl_scratch": (_Long, _Long, _Long),
    "dsvl_normalize": (None, _Pointer, _Pointer, _Float, _Long, _Long, _Pointer),
    "dsvl_rotate": (None, _Pointer, _Pointer, _Pointer, _Long, _Long, _Long),
    "dsvl_attend": (
        None, _Int, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer, _Long, _Long, _Long, _Long, _Float, _Pointer,
        _Int,
    ),
    "dsvl_pack": (None, _Int, _Pointer, _Long, _Long, _Pointer, _Pointer, _Int),
    "dsvl_dequantize": (None, _Int, _Pointer, _Pointer, _Long, _Long, _Int, _Pointer, _Int),
    "dsvl_step_scratch": (_Long, ctypes.POINTER(NativeModel), _Long),
    "dsvl_step": (
        None, ctypes.POINTER(NativeModel), _Long, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer,
        _Int,
    ),
}  # fmt: skip


def bind(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the functions of kernels.c.

    Raises:
        AttributeError: the library has not all of them.
    """
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def address(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's data.

    Raises:
        ValueError: it is not one block of memory on the CPU.
    """
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError("compiled kernels take contiguous tensors on the CPU")
    return tensor.data_ptr()


def addresses(tensors: Sequence[torch.Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of several tensors, as a C array."""
    return (_Pointer * len(tensors))(*(address(tensor) for tensor in tensors))


def numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """Return whole numbers as a C array."""
    return (_Long * len(values))(*values)


class Scratch:
    """Memory that calls share; grows as needed."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def at_least(self, size: int) -> int:
        """Return the address of `size` bytes."""
        if self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=torch.uint8)
        return self._memory.data_ptr()
