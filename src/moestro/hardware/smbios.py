"""Memory modules and slots, as the board's maker wrote them into the SMBIOS tables.

Layout: DMTF DSP0134, System Management BIOS 3.x: type 16 (memory array) and type 17 (a slot, with
or without a module).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from moestro.hardware.bandwidth import CHANNEL_BYTES
from moestro.units import KIB, MIB

_ARRAY, _DEVICE, _END = 16, 17, 127
_SYSTEM_MEMORY = 0x03
_MOST_STRUCTURES = 4096
_KINDS = {
    0x12: "DDR", 0x13: "DDR2", 0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2",
    0x1D: "LPDDR3", 0x1E: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5",
    0x24: "HBM3",
}  # fmt: skip
PLUGGED = frozenset(("DDR", "DDR2", "DDR3", "DDR4", "DDR5"))
"""Kinds that come in modules with one channel each; the others are soldered, several channels in
one package."""

# Where a channel hides in a slot's names: "ChannelA-DIMM0", "P0 CHANNEL A", "Node0_Channel1_Dimm0";
# "DIMM_A1", "P1-DIMMA1", "CPU1_DIMM_A1". Plain numbers ("DIMM 3", "A7", "BANK 2") tell none.
_CHANNEL = re.compile(r"CHANNEL[ _-]?([A-Z]|\d{1,2})(?![A-Z0-9])")
_LETTERED = re.compile(r"DIMM[ _-]?([A-P])[ _-]?\d?$")
_CONTROLLER = re.compile(r"(?<![A-Z])(?:CONTROLLER|MC|NODE|CPU|PROC|SOCKET|P)[ _-]?(\d{1,2})(?!\d)")

_UDEV_LINE = re.compile(r"^E:MEMORY_DEVICE_(\d{1,4})_([A-Z_]+)=(.*)$", re.M | re.ASCII)
_UDEV_NOTHING = frozenset(("Not Specified", "<BAD INDEX>"))
_NO_MAIN_MEMORY = frozenset(("VRAM", "ROM", "Flash", "EEPROM", "FEPROM", "EPROM"))


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a module. `size_bytes` 0 is an empty one, None an unknown size.

    Speeds are in 10**6 transfers per second: what the module is made for, and what it runs at.
    """

    locator: str
    bank: str
    size_bytes: int | None
    kind: str | None = None
    rated: int | None = None
    configured: int | None = None
    maker: str = ""

    @property
    def populated(self) -> bool:
        return self.size_bytes != 0

    @property
    def channel(self) -> tuple[str, ...] | None:
        """What names its channel on this board (numbers of controllers, then the channel); None
        where the names do not tell."""
        for text in (self.bank.upper(), self.locator.upper()):
            found = _CHANNEL.search(text) or _LETTERED.search(text)
            if found is not None:
                # The controller may stand in either name: "CPU0" there, "CHANNEL A" here.
                both = f"{self.bank} {self.locator}".upper()
                return (*_CONTROLLER.findall(both), found[1])
        return None


@dataclass(frozen=True, slots=True)
class Modules:
    """All slots for main memory."""

    slots: tuple[Slot, ...]

    @property
    def populated(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.populated)

    def channels(self) -> tuple[int, int] | None:
        """Channels with a module, and channels of the board; None where the slots' names do not
        tell all of them."""
        names = [slot.channel for slot in self.slots]
        if not names or None in names:
            return None
        return len({slot.channel for slot in self.populated}), len(set(names))

    @property
    def megatransfers(self) -> int | None:
        """What the modules run at: the slowest of them."""
        known = [slot.configured or slot.rated for slot in self.populated]
        return min((speed for speed in known if speed), default=None)

    def peak(self, channels: int) -> float | None:
        """Bytes per second of so many channels."""
        speed = self.megatransfers
        return None if speed is None else speed * 1e6 * CHANNEL_BYTES * channels


def parse_smbios(data: bytes) -> Modules:
    """The slots for main memory out of `/sys/firmware/dmi/tables/DMI`; none out of what is no such
    table, and what came before the damage of a damaged one."""
    others: set[int] = set()
    found: list[tuple[int, Slot]] = []
    for kind, handle, formatted, strings in _structures(data):
        if kind == _ARRAY and len(formatted) > 0x05 and formatted[0x05] != _SYSTEM_MEMORY:
            others.add(handle)  # video memory, flash, cache
        elif kind == _DEVICE and len(formatted) >= 0x15:
            found.append((_word(formatted, 0x04) or 0, _slot(formatted, strings)))
    return Modules(tuple(slot for array, slot in found if array not in others))


def parse_udev(text: str) -> Modules:
    """The same out of what udev keeps of the table for everybody, in `/run/udev/data/+dmi:id`:
    lines such as `E:MEMORY_DEVICE_0_LOCATOR=DIMM 0` (systemd's `dmi_memory_id.c`)."""
    found: dict[int, dict[str, str]] = {}
    for number, name, value in _UDEV_LINE.findall(text):
        if int(number) < _MOST_STRUCTURES:
            found.setdefault(int(number), {})[name] = value.strip()
    slots = (_udev_slot(fields) for _, fields in sorted(found.items()))
    return Modules(tuple(slot for slot in slots if slot is not None))


def _udev_slot(fields: dict[str, str]) -> Slot | None:
    kind = fields.get("TYPE", "")
    if kind in _NO_MAIN_MEMORY:
        return None

    def text(name: str) -> str:
        value = fields.get(name, "")
        return value if value.isprintable() and value not in _UDEV_NOTHING else ""

    def number(name: str) -> int | None:
        value = fields.get(name, "")
        return int(value) if re.fullmatch(r"\d{1,18}", value, re.ASCII) else None

    return Slot(
        locator=text("LOCATOR"),
        bank=text("BANK_LOCATOR"),
        size_bytes=0 if fields.get("PRESENT") == "0" else number("SIZE"),
        kind=kind if kind in _KINDS.values() else None,
        rated=number("SPEED_MTS") or None,
        configured=number("CONFIGURED_SPEED_MTS") or None,
        maker=text("MANUFACTURER"),
    )


def _structures(data: bytes) -> list[tuple[int, int, bytes, list[str]]]:
    """Type, handle, formatted part and strings of each structure, as far as they are whole."""
    found: list[tuple[int, int, bytes, list[str]]] = []
    at = 0
    while at + 4 <= len(data) and len(found) < _MOST_STRUCTURES:
        kind, length = data[at], data[at + 1]
        end = data.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            break
        texts = data[at + length : end].split(b"\0")
        strings = [text.decode("latin-1").strip() for text in takewhile(bool, texts)]
        handle = int.from_bytes(data[at + 2 : at + 4], "little")
        found.append((kind, handle, data[at : at + length], strings))
        if kind == _END:
            break
        at = end + 2
    return found


def _slot(formatted: bytes, strings: list[str]) -> Slot:
    def text(offset: int) -> str:
        number = formatted[offset] if offset < len(formatted) else 0
        value = strings[number - 1] if 0 < number <= len(strings) else ""
        return value if value.isprintable() else ""

    return Slot(
        locator=text(0x10),
        bank=text(0x11),
        size_bytes=_size(formatted),
        kind=_KINDS.get(formatted[0x12]),
        rated=_speed(formatted, 0x15, 0x54),
        configured=_speed(formatted, 0x20, 0x58),
        maker=text(0x17),
    )


def _size(formatted: bytes) -> int | None:
    size = _word(formatted, 0x0C)
    if size is None or size == 0xFFFF:
        return None
    if size == 0x7FFF:  # more than a word holds
        extended = _word(formatted, 0x1C, 4)
        return None if extended is None else (extended & 0x7FFFFFFF) * MIB
    return (size & 0x7FFF) * (KIB if size & 0x8000 else MIB)


def _speed(formatted: bytes, offset: int, extended: int) -> int | None:
    speed = _word(formatted, offset)
    if speed == 0xFFFF:
        speed = (_word(formatted, extended, 4) or 0) & 0x7FFFFFFF
    return speed or None


def _word(formatted: bytes, offset: int, size: int = 2) -> int | None:
    if offset + size > len(formatted):
        return None
    return int.from_bytes(formatted[offset : offset + size], "little")
