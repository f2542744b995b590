"""What ggml itself says of its tensor types, and its own way from their blocks back to numbers.

The table's entries are structs whose layout belongs to the release (`ggml.h`), so sizes and names
are compared with ours before a pointer out of them is called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import ClassVar

from moestro.engine.llama_cpp.version import installed_version, mismatch
from moestro.model.ggml_types import BY_NAME, GGML_TYPES

TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}

ToFloat = Callable[[int, int, int], None]
"""(address of the blocks, address of the float32 values, count of values)."""

_ToFloat = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)
_HALF_ONE = b"\x00\x3c"


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits`."""

    _fields_: ClassVar = [
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", c_void_p),
        ("from_float_ref", c_void_p),
    ]


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Gives the functions used here their types; returns the library."""
    library.ggml_get_type_traits.restype = POINTER(_TypeTraits)
    library.ggml_get_type_traits.argtypes = [c_int]
    library.ggml_validate_row_data.restype = c_bool
    library.ggml_validate_row_data.argtypes = [c_int, c_void_p, c_size_t]
    return library


def check_traits(library: ctypes.CDLL) -> None:
    """
    Raises:
        EngineMismatch: the layout here is not that of this engine, or it counts types differently.
    """
    for number, ours in GGML_TYPES.items():
        traits = library.ggml_get_type_traits(number).contents
        name = (traits.type_name or b"").decode(errors="replace").upper()
        if (name, traits.blck_size, traits.type_size) != (
            ours.name,
            ours.block_size,
            ours.block_bytes,
        ):
            raise mismatch(installed_version(), f"stores {ours.name} differently")
    blocks = ctypes.create_string_buffer(_HALF_ONE + bytes(range(32)), 34)
    values = (ctypes.c_float * 32)()
    to_float = to_float_of(library, "Q8_0")
    if to_float is not None:
        to_float(ctypes.addressof(blocks), ctypes.addressof(values), 32)
    if list(values) != list(range(32)):
        raise mismatch(installed_version(), "turns Q8_0 into other numbers")


def to_float_of(library: ctypes.CDLL, type_name: str) -> ToFloat | None:
    """ggml's function for a type; None if it has none, as for plain numbers."""
    address = library.ggml_get_type_traits(TYPE_NUMBERS[type_name]).contents.to_float
    return _ToFloat(address) if address else None


__all__ = ["BY_NAME", "TYPE_NUMBERS", "ToFloat", "check_traits", "declare", "to_float_of"]
