"""Writes SMBIOS tables, as boards' makers do, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

GIB_IN_MIB = 1024
DDR4, DDR5, LPDDR5 = 0x1A, 0x22, 0x23


def structure(kind: int, handle: int, formatted: bytes, strings: Iterable[str] = ()) -> bytes:
    head = bytes((kind, 4 + len(formatted))) + handle.to_bytes(2, "little")
    texts = b"".join(text.encode("latin-1") + b"\0" for text in strings)
    return head + formatted + (texts or b"\0") + b"\0"


def array(handle: int, *, slots: int, use: int = 3) -> bytes:
    """Type 16: on the board (3), `use` 3 is main memory, no error correction (3)."""
    return structure(16, handle, bytes((3, use, 3)) + bytes(6) + _word(slots))


def module(
    handle: int,
    locator: str,
    bank: str,
    *,
    gib: int | None = 16,
    kind: int = DDR5,
    rated: int = 5600,
    configured: int = 5600,
    within: int = 0x1000,
) -> bytes:
    """Type 17. `gib` 0 is an empty slot, None an unknown size."""
    mib = None if gib is None else gib * GIB_IN_MIB
    size = 0xFFFF if mib is None else 0x7FFF if mib >= 0x7FFF else mib
    width = 64 if gib else 0
    texts = [text for text in (locator, bank, "G Skill Intl") if text]  # there are no empty ones
    names = [texts.index(text) + 1 if text else 0 for text in (locator, bank, "G Skill Intl")]
    formatted = b"".join((
        _word(within), _word(0xFFFE), _word(width), _word(width), _word(size),
        bytes((0x09, 0, names[0], names[1], kind)), _word(0x80), _word(rated),
        bytes((names[2], 0, 0, 0, 0)),
        (mib if mib is not None and mib >= 0x7FFF else 0).to_bytes(4, "little"),
        _word(configured), bytes(6), bytes(50),
    ))  # fmt: skip
    return structure(17, handle, formatted, texts)


def table(*structures: bytes) -> bytes:
    bios = structure(0, 0, bytes(20), ("American Megatrends", "1.0", "01/01/2026"))
    return bios + b"".join(structures) + structure(127, 0xFEFF, b"")


def board(sizes: Mapping[tuple[str, str], int], **all_of_them: Any) -> bytes:
    """Locator and bank of each slot → GiB in it."""
    modules = (
        module(0x1100 + number, *names, gib=gib, **all_of_them)
        for number, (names, gib) in enumerate(sizes.items())
    )
    return table(array(0x1000, slots=len(sizes)), *modules)


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")
