"""The self-test of `backend_structs`: the engine's own CPU device, buffers and a tensor, seen
through our layouts, as the engine's functions describe them.

Like `abi`, it runs before anything is trusted: a moved field would call the wrong function.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import ClassVar

from moestro.engine.llama_cpp.backend_structs import (
    API_VERSION,
    BufferType,
    Device,
    Registry,
    Tensor,
)
from moestro.engine.llama_cpp.version import installed_version, mismatch

_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_HALVES = 1  # GGML_TYPE_F16
_SHAPE = (256, 3)


class _InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_: ClassVar = [
        ("mem_size", c_size_t),
        ("mem_buffer", c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


def check_backend_structs(library: ctypes.CDLL) -> None:
    """
    Raises:
        EngineMismatch: the layouts here are not those of this engine.
    """
    wrong = _wrong_device(library) or _wrong_tensor(library)
    if wrong:
        raise mismatch(installed_version(), f"has another binary interface ({wrong})")


def _wrong_device(library: ctypes.CDLL) -> str | None:
    """What differs in the CPU's device, registry and buffer type; None if nothing does."""
    for name, argument in (("ggml_backend_dev_by_type", c_int),
                           ("ggml_backend_dev_backend_reg", c_void_p),
                           ("ggml_backend_dev_buffer_type", c_void_p)):  # fmt: skip
        getattr(library, name).restype = c_void_p
        getattr(library, name).argtypes = [argument]
    address = library.ggml_backend_dev_by_type(_CPU)
    device = Device.from_address(address)
    # Pointers first: calling a wrong one would end the process.
    if device.registry != library.ggml_backend_dev_backend_reg(address):
        return "a device's registry"
    if Registry.from_address(device.registry).api_version != API_VERSION:
        return "the version of its back ends"
    if _text(device.table.get_name(address)) != library.ggml_backend_dev_name(address):
        return "a device's name"
    if device.table.get_type(address) != library.ggml_backend_dev_type(address):
        return "a device's type"
    buffers = device.table.get_buffer_type(address)
    if buffers != library.ggml_backend_dev_buffer_type(address):
        return "a device's buffers"
    kind = BufferType.from_address(buffers)
    if _text(kind.table.get_name(buffers)) != library.ggml_backend_buft_name(buffers):
        return "a buffer type's name"
    return None


def _wrong_tensor(library: ctypes.CDLL) -> str | None:
    for name, result, arguments in (
        ("ggml_init", c_void_p, [_InitParams]),
        ("ggml_free", None, [c_void_p]),
        ("ggml_new_tensor_2d", c_void_p, [c_void_p, c_int, c_int64, c_int64]),
        ("ggml_scale", c_void_p, [c_void_p, c_void_p, ctypes.c_float]),
        ("ggml_set_name", c_void_p, [c_void_p, c_char_p]),
        ("ggml_op_name", c_char_p, [c_int]),
    ):
        getattr(library, name).restype = result
        getattr(library, name).argtypes = arguments
    context = library.ggml_init(_InitParams(1 << 16, None, True))
    source = library.ggml_new_tensor_2d(context, _HALVES, *_SHAPE)
    address = library.ggml_scale(context, source, 2.0)
    library.ggml_set_name(address, b"checked")
    tensor = Tensor.from_address(address)
    seen = (
        tensor.type,
        tuple(tensor.ne),
        tuple(tensor.nb)[:2],
        library.ggml_op_name(tensor.op),
        tensor.src[0],
        bytes(tensor.name)[:8],
    )
    library.ggml_free(context)
    expected = (_HALVES, (*_SHAPE, 1, 1), (2, 512), b"SCALE", source, b"checked\0")
    return None if seen == expected else "a tensor"


def _text(address: int) -> bytes | None:
    return c_char_p(address).value
