"""A `const std::string &` for the few C++ functions of the engine that want one.

libstdc++ has two layouts, told apart by the mangled names of functions that take one: since C++11
an object of {characters, length, …}, and before that (which builds for old systems still use) one
pointer to characters with {length, capacity, owners} in front of them. libc++ has neither.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, ClassVar

CXX11 = "RKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
OLD = "RKSs"

_NOT_SHARED = -1
"""In place of the number of owners: whoever wants a copy has to copy the characters."""


class _Cxx11String(ctypes.Structure):
    _fields_: ClassVar = [
        ("characters", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("local", ctypes.c_char * 16),
    ]


def std_string(text: bytes, layout: str) -> tuple[ctypes.c_void_p, Any]:
    """The address of a string in `layout` (`CXX11` or `OLD`), and what has to live as long."""
    if layout == CXX11:
        characters = ctypes.create_string_buffer(text)
        value = _Cxx11String(ctypes.addressof(characters), len(text))
        return ctypes.c_void_p(ctypes.addressof(value)), (characters, value)
    head = struct.pack("nni4x", len(text), len(text), _NOT_SHARED)
    block = ctypes.create_string_buffer(head + text)
    pointer = ctypes.c_void_p(ctypes.addressof(block) + len(head))
    return ctypes.c_void_p(ctypes.addressof(pointer)), (block, pointer)


def function_of_string(library: ctypes.CDLL, name: str, rest: str) -> tuple[Any, str] | None:
    """The function that takes a string first and `rest` (mangled) after it, and the string's
    layout; None in a library of neither layout."""
    for layout in (CXX11, OLD):
        function = getattr(library, f"_Z{len(name)}{name}{layout}{rest}", None)
        if function is not None:
            return function, layout
    return None
