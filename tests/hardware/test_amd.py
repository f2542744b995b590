"""AMD: `rocminfo` (a documented sample, shortened) and the kernel's files (made after its docs)."""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.hardware import amd
from moestro.hardware.amd import (
    Card,
    find_amd,
    match_cards,
    parse_kfd_properties,
    parse_link,
    parse_rocm_version,
    parse_rocminfo,
    read_card,
)
from moestro.hardware.gpu import Gpu, Link
from moestro.units import GIB

ROCMINFO = """\
ROCk module version 6.12.12 is loaded
=====================
HSA System Attributes
=====================
Runtime Version:         1.15
==========
HSA Agents
==========
*******
Agent 1
*******
  Name:                    AMD Ryzen 9 7950X 16-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD Ryzen 9 7950X 16-Core Processor
  Device Type:             CPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: FINE GRAINED
      Size:                    65000000(0x3dfd240) KB
*******
Agent 2
*******
  Name:                    gfx1100
  Uuid:                    GPU-0123456789abcdef
  Marketing Name:          AMD Radeon RX 7900 XTX
  Device Type:             GPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: COARSE GRAINED
      Size:                    25149440(0x17fc000) KB
    Pool 2
      Segment:                 GROUP
      Size:                    64(0x40) KB
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx1100
*** Done ***
"""


def test_rocminfo_lists_gpus_only():
    (gpu,) = parse_rocminfo(ROCMINFO)
    assert gpu == Gpu("amd", "AMD Radeon RX 7900 XTX", 25149440 * 1024, target="gfx1100")
    assert parse_rocminfo("ROCk module is NOT loaded, possibly no GPU devices\n") == ()


def test_an_apu_shares_the_hosts_memory():
    text = ROCMINFO.replace("  Device Type:             GPU", "  Device Type:             GPU\n"
                            "  Memory Properties:       APU")  # fmt: skip
    assert parse_rocminfo(text)[0].shared
    assert not parse_rocminfo(ROCMINFO)[0].shared


def test_a_pool_of_no_size_is_unknown_not_zero():
    text = ROCMINFO.replace("25149440(0x17fc000)", "0(0x0)")
    assert parse_rocminfo(text)[0].memory_bytes is None


@pytest.mark.parametrize(
    ("number", "target"),
    [
        (110000, "gfx1100"),
        (100300, "gfx1030"),
        (90010, "gfx90a"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
        (90500, "gfx950"),
        (0, None),
    ],
)
def test_kernel_topology(number: int, target: str | None):
    text = f"cpu_cores_count 0\nsimd_count 192\ngfx_target_version {number}\nvendor_id 4098\n"
    assert parse_kfd_properties(text) == target


def test_rocm_version():
    assert parse_rocm_version("7.2.4-93\n") == (7, 2)
    assert parse_rocm_version("") is None


@pytest.mark.parametrize(
    ("files", "link"),
    [
        (("16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"), (4, 16, 4, 16)),
        (("2.5 GT/s PCIe\n", "8\n", "32.0 GT/s PCIe\n", "16\n"), (1, 8, 5, 16)),
        (("Unknown", "0", "Unknown", "255"), None),
        (("", "", "", ""), None),
    ],
)
def test_link(files: tuple[str, str, str, str], link: tuple[int, int, int, int] | None):
    found = parse_link(*files)
    if link is None:
        assert found is None
    else:
        assert found is not None
        assert (found.generation, found.width, found.max_generation, found.max_width) == link
        # Under load the link runs at its best generation, and at the lanes that it has.
        assert found.bandwidth is not None
        assert found.bandwidth.detail == f"PCIe {link[2]}.0 x{link[1]}"


def make_card(drm: Path, number: int, vendor: str = "0x1002", **files: str) -> Path:
    device = drm.parent / "devices" / f"0000:{number:02}:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(vendor + "\n")
    for name, text in files.items():
        (device / name).write_text(text + "\n")
    (drm / f"card{number}").mkdir(parents=True)
    (drm / f"card{number}" / "device").symlink_to(device)
    return device


def test_a_card_of_the_kernel(tmp_path: Path):
    device = make_card(
        tmp_path / "drm",
        1,
        mem_info_vram_total=str(24 * GIB),
        mem_info_vram_used=str(2 * GIB),
        mem_info_gtt_total=str(30 * GIB),
        current_link_speed="16.0 GT/s PCIe",
        current_link_width="16",
    )
    card = read_card(tmp_path / "drm/card1/device")
    assert card.slot == device.name
    assert (card.memory_bytes, card.used_bytes, card.shared_bytes) == (24 * GIB, 2 * GIB, 30 * GIB)
    assert card.link is not None
    assert card.link.generation == 4
    assert read_card(tmp_path / "nowhere") == Card("nowhere")


def test_cards_add_free_memory_and_link():
    gpu = Gpu("amd", "A", 24 * GIB, target="gfx1100")
    cards = [Card("0000:03:00.0", 24 * GIB, 3 * GIB, link=Link(4, 16))]
    ((merged,), findings) = match_cards((gpu,), cards)
    assert merged.free_bytes == 21 * GIB
    assert merged.link == Link(4, 16)
    assert findings == ()
    # Nothing tells which card is which: nothing is added.
    assert match_cards((gpu, gpu), cards) == ((gpu, gpu), ())


def test_a_driver_that_lies_about_use():
    gpu = Gpu("amd", "A", 24 * GIB, target="gfx1100")
    ((merged,), (finding,)) = match_cards((gpu,), [Card("0", 24 * GIB, 25 * GIB)])
    assert merged.free_bytes is None
    assert finding.code == "gpu-tool-lies"


def test_gpus_through_the_kernel_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(amd, "run_tool", lambda *_: None)
    for number, version in enumerate((0, 110000)):
        node = tmp_path / "nodes" / str(number)
        node.mkdir(parents=True)
        (node / "properties").write_text(f"gfx_target_version {version}\n")
    make_card(tmp_path / "drm", 0, vendor="0x8086", mem_info_vram_total="5")
    make_card(
        tmp_path / "drm",
        1,
        mem_info_vram_total=str(24 * GIB),
        mem_info_vram_used=str(GIB),
    )
    found = find_amd(tmp_path / "nodes", tmp_path / "drm", tmp_path / "no-version")
    (gpu,) = found.gpus
    assert (gpu.target, gpu.memory_bytes, gpu.free_bytes) == ("gfx1100", 24 * GIB, 23 * GIB)
    assert found.rocm is None
