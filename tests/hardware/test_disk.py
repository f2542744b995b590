from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from moestro.hardware.disk import Mount, disk_of, parse_mounts

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:30 /@home /home rw - btrfs /dev/nvme0n1p2 rw,ssd
31 22 0:31 / /mnt/with\040blank rw master:2 - nfs4 server:/x rw
garbage
40 22 x:y / /bad rw - ext4 /dev/sda rw
41 22 254:0 /sub /again rw - ext4 /dev/vda rw
"""


def test_mounts():
    assert parse_mounts(MOUNTS) == {
        (254, 0): Mount("/", "ext4", "/dev/vda"),
        (0, 21): Mount("/proc", "proc", "proc"),
        (0, 30): Mount("/home", "btrfs", "/dev/nvme0n1p2"),
        (0, 31): Mount("/mnt/with blank", "nfs4", "server:/x"),
    }
    assert parse_mounts("") == {}


def made(
    tmp_path: Path, name: str, rotational: str | None, *, partition: bool = False
) -> tuple[Path, Path]:
    """`/sys` and `/proc/self/mountinfo` of a machine whose disk of this name holds `tmp_path`."""
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    block = tmp_path / "sys/devices" / name
    (block / "queue").mkdir(parents=True)
    if rotational is not None:
        (block / "queue/rotational").write_text(rotational + "\n")
    target = block
    if partition:
        target = block / f"{name}p1"
        target.mkdir()
        (target / "partition").write_text("1\n")
    link = tmp_path / "sys/dev/block" / number
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 {number} / /data rw - ext4 /dev/{name} rw\n")
    return tmp_path / "sys", mounts


@pytest.mark.parametrize(
    ("name", "rotational", "partition", "kind"),
    [
        ("nvme0n1", "0", True, "nvme"),
        ("sda", "0", True, "ssd"),
        ("sda", "1", False, "hdd"),
        ("sda", None, False, None),
        # A virtual disk's word about rotation is not about the real one.
        ("vda", "1", False, None),
        ("xvdb", "0", True, None),
    ],
)
def test_kinds(tmp_path: Path, name: str, rotational: str, partition: bool, kind: str | None):
    sys, mounts = made(tmp_path, name, rotational, partition=partition)
    disk = disk_of(tmp_path, sys=sys, mounts=mounts)
    assert disk is not None
    assert (disk.name, disk.mount, disk.kind) == (name, "/data", kind)


def test_a_logical_volume_is_as_its_disk(tmp_path: Path):
    sys, mounts = made(tmp_path, "dm-0", "0")
    below = tmp_path / "sys/devices/nvme1n1"
    part = below / "nvme1n1p3"
    part.mkdir(parents=True)
    (part / "partition").write_text("3\n")
    slaves = tmp_path / "sys/devices/dm-0/slaves"
    slaves.mkdir()
    (slaves / "nvme1n1p3").symlink_to(part)
    disk = disk_of(tmp_path, sys=sys, mounts=mounts)
    assert disk is not None
    assert (disk.name, disk.kind) == ("nvme1n1", "nvme")


def test_a_file_system_without_a_disk(tmp_path: Path):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mounts"
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(f"1 0 {number} / /tmp rw - tmpfs tmpfs rw\n")
    disk = disk_of(tmp_path, sys=tmp_path / "no-sys", mounts=mounts)
    assert disk is not None
    assert (disk.name, disk.kind) == ("tmpfs", None)


def test_free_space_is_what_a_user_may_fill(tmp_path: Path):
    disk = disk_of(tmp_path / "not" / "there" / "yet")
    assert disk is not None
    assert disk.free_bytes == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)
