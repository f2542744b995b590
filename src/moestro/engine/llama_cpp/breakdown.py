"""What a context takes, buffer type by buffer type, to the byte.

`llama_get_memory_breakdown` returns a `std::map` from buffer types to three sizes. Its tree is read
here in place: both C++ libraries that the engine is built with keep it in nodes whose layout is
part of their binary interface, frozen for a decade. The count that the map carries is compared.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import c_size_t, c_void_p
from dataclasses import dataclass
from typing import ClassVar

from moestro.errors import EngineMismatch

_MOST_NODES = 256


@dataclass(frozen=True, slots=True)
class Share:
    """What lies in buffers of one type."""

    buffer_type: int
    weights_bytes: int
    context_bytes: int
    compute_bytes: int


class _LibstdcxxMap(ctypes.Structure):
    """`std::map` of libstdc++: the header node is inside the map, its parent is the root."""

    _fields_: ClassVar = [
        ("compare", c_void_p),
        ("color", c_void_p),
        ("root", c_void_p),
        ("leftmost", c_void_p),
        ("rightmost", c_void_p),
        ("count", c_size_t),
    ]


class _LibstdcxxNode(ctypes.Structure):
    _fields_: ClassVar = [
        ("color", c_void_p),
        ("parent", c_void_p),
        ("left", c_void_p),
        ("right", c_void_p),
        ("buffer_type", c_void_p),
        ("sizes", c_size_t * 3),
    ]


class _LibcxxMap(ctypes.Structure):
    """`std::map` of libc++: the end node's only child is the root."""

    _fields_: ClassVar = [("leftmost", c_void_p), ("root", c_void_p), ("count", c_size_t)]


class _LibcxxNode(ctypes.Structure):
    _fields_: ClassVar = [
        ("left", c_void_p),
        ("right", c_void_p),
        ("parent", c_void_p),
        ("color", c_void_p),
        ("buffer_type", c_void_p),
        ("sizes", c_size_t * 3),
    ]


_Map, _Node = (
    (_LibcxxMap, _LibcxxNode) if sys.platform == "darwin" else (_LibstdcxxMap, _LibstdcxxNode)
)


def memory_breakdown(library: ctypes.CDLL, context: int) -> list[Share]:
    """
    Raises:
        EngineMismatch: the engine's library does not export it, or keeps it in another way.
    """
    try:
        ask = library._Z26llama_get_memory_breakdownPK13llama_context
    except AttributeError as error:
        raise _mismatch() from error
    ask.restype, ask.argtypes = _Map, [c_void_p]
    # The map is never freed: a few hundred bytes in a process that lives for a second.
    found = ask(context)
    if not 0 < found.count <= _MOST_NODES:
        raise _mismatch()
    shares = list(_walk(found.root, found.count))
    if len(shares) != found.count:
        raise _mismatch()
    return shares


def _walk(node: int | None, left: int) -> Iterator[Share]:
    """The nodes below `node`, of which there are `left` at most."""
    pending = [node] if node else []
    while pending and left >= 0:
        here = _Node.from_address(pending.pop())
        left -= 1
        yield Share(here.buffer_type, *here.sizes)
        pending += [child for child in (here.left, here.right) if child]


def _mismatch() -> EngineMismatch:
    return EngineMismatch(
        "The inference engine does not tell its memory the way this version expects.",
        hint="Plans use formulae instead; reinstall the engine that belongs to this version.",
    )
