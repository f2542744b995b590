"""Modules and channels out of tables as boards have them, and out of damaged ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.hardware.smbios import Slot, parse_smbios
from moestro.units import GIB, MIB
from tests.hardware.smbios_writer import DDR4, LPDDR5, array, board, module, structure, table

AM5 = {
    ("DIMM 0", "P0 CHANNEL A"): 0,
    ("DIMM 1", "P0 CHANNEL A"): 32,
    ("DIMM 0", "P0 CHANNEL B"): 0,
    ("DIMM 1", "P0 CHANNEL B"): 32,
}


def test_a_desktop_with_two_of_four_slots_in_use():
    modules = parse_smbios(board(AM5))
    assert [slot.size_bytes for slot in modules.slots] == [0, 32 * GIB, 0, 32 * GIB]
    assert modules.channels() == (2, 2)
    assert modules.megatransfers == 5600
    assert modules.peak(2) == pytest.approx(89.6e9)
    first = modules.populated[0]
    assert (first.kind, first.rated, first.configured) == ("DDR5", 5600, 5600)
    assert (first.locator, first.bank, first.maker) == ("DIMM 1", "P0 CHANNEL A", "G Skill Intl")


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ((("DIMM_A1", "BANK 0"), ("DIMM_B1", "BANK 2")), 2),
        ((("Controller0-ChannelA-DIMM0", "BANK 0"), ("Controller1-ChannelA-DIMM0", "BANK 0")), 2),
        ((("ChannelA-DIMM0", "BANK 0"), ("ChannelA-DIMM1", "BANK 1")), 1),
        ((("P1-DIMMA1", "P0_Node0_Channel0_Dimm0"), ("P1-DIMMB1", "P0_Node0_Channel1_Dimm0")), 2),
        ((("CPU1_DIMM_A1", "NODE 1"), ("CPU2_DIMM_A1", "NODE 2")), 2),
        ((("DIMM_A1", "BANK 0"), ("DIMM_A2", "BANK 1")), 1),
        # Numbers alone do not tell; Dell's letter is the socket.
        ((("DIMM 1", "BANK 0"), ("DIMM 2", "BANK 1")), None),
        ((("A1", ""), ("A2", "")), None),
        ((("PROC 1 DIMM 1", ""), ("PROC 1 DIMM 12", "")), None),
        ((("Top-Slot 1(top)", ""), ("Motherboard", "Bank 1")), None),
        ((("DIMM_A1", "BANK 0"), ("SO-DIMM", "")), None),
    ],
)
def test_channels_by_the_names_of_slots(names: tuple[tuple[str, str], ...], channels: int | None):
    found = parse_smbios(board(dict.fromkeys(names, 16))).channels()
    assert found == (None if channels is None else (channels, channels))


def test_speeds_and_sizes_that_do_not_fit_a_word():
    large = module(1, "DIMM_A1", "", gib=256, rated=0xFFFF)
    kilobytes = structure(17, 2, bytes(8) + (0x8000 | 512).to_bytes(2, "little") + bytes(20))
    unknown = module(3, "DIMM_B1", "", gib=None)
    modules = parse_smbios(table(large, kilobytes, unknown))
    assert [slot.size_bytes for slot in modules.slots] == [256 * GIB, MIB // 2, None]
    assert (
        modules.slots[0].rated is None
    )  # it says that the speed stands elsewhere, and it does not
    assert modules.slots[2].populated


def test_other_memory_is_not_main_memory():
    video = 0x2000
    modules = parse_smbios(table(
        array(0x1000, slots=1), array(video, slots=1, use=4),
        module(1, "DIMM_A1", "", kind=DDR4), module(2, "VRAM", "", within=video),
    ))  # fmt: skip
    assert [slot.locator for slot in modules.slots] == ["DIMM_A1"]


def test_soldered_memory_has_a_kind_of_its_own():
    (slot,) = parse_smbios(table(module(1, "Motherboard", "", kind=LPDDR5))).slots
    assert slot.kind == "LPDDR5"
    assert slot.channel is None


def test_no_slot_has_no_channels():
    assert parse_smbios(b"").channels() is None
    assert parse_smbios(table()).slots == ()


def test_what_came_before_the_damage_counts():
    whole = board(AM5)
    assert len(parse_smbios(whole[:-70]).slots) in (1, 2, 3)
    assert parse_smbios(whole[:3]).slots == ()


@given(st.binary(max_size=400))
def test_noise_is_read_without_an_error(noise: bytes):
    assert all(isinstance(slot, Slot) for slot in parse_smbios(noise).slots)
    assert all(isinstance(slot, Slot) for slot in parse_smbios(board(AM5)[:60] + noise).slots)
