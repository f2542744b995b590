from __future__ import annotations

from pathlib import Path

import pytest

from moestro.hardware.limits import (
    Limits,
    parse_bytes,
    parse_cpu_max,
    parse_cpu_quota_v1,
    read_limits,
    usable_cores,
)
from moestro.units import GIB


@pytest.mark.parametrize(
    ("text", "cores"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("5 0", None), ("x y", None)],
)
def test_cpu_max(text: str, cores: float | None):
    assert parse_cpu_max(text) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [("200000\n", "100000\n", 2.0), ("-1\n", "100000\n", None), ("", "", None)],
)
def test_cpu_quota_of_version_1(quota: str, period: str, cores: float | None):
    assert parse_cpu_quota_v1(quota, period) == cores


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1073741824\n", GIB), ("max\n", None), ("9223372036854771712\n", None), ("", None)],
)
def test_bytes(text: str, size_bytes: int | None):
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("physical", "allowed", "quota", "cores"),
    [
        (8, 16, None, 8),  # twins are not worth a thread
        (8, 4, None, 4),
        (8, 16, 1.5, 2),
        (8, 16, 0.1, 1),
        (8, 16, 32.0, 8),
        (1, 1, None, 1),
    ],
)
def test_usable_cores(physical: int, allowed: int, quota: float | None, cores: int):
    assert usable_cores(physical, allowed, quota) == cores


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_2_takes_the_tightest_on_the_way_up(tmp_path: Path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/user.slice/moestro.service\n")
    write(root / "user.slice", cpu__max="300000 100000", memory__max=str(8 * GIB))
    write(root / "user.slice", memory__current=str(7 * GIB))
    write(root / "user.slice", memory__stat=f"anon 5\nactive_file {GIB}\ninactive_file {GIB}\n")
    write(root / "user.slice/moestro.service", cpu__max="max 100000", memory__max=str(6 * GIB))
    write(root / "user.slice/moestro.service", memory__current="0")
    assert read_limits(root, own) == Limits(3.0, 8 * GIB, 5 * GIB)


def test_version_1(tmp_path: Path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("4:memory:/box\n2:cpu,cpuacct:/box\n1:name=systemd:/\n")
    write(root / "memory/box", memory__limit_in_bytes=str(2 * GIB), memory__usage_in_bytes="5")
    write(root / "memory", memory__limit_in_bytes="9223372036854771712")
    write(root / "cpu/box", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert read_limits(root, own) == Limits(0.5, 2 * GIB, 5)


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/docker/0123456789\n")
    write(root, cpu__max="100000 100000", memory__max=str(GIB), memory__current="0")
    assert read_limits(root, own) == Limits(1.0, GIB, 0)


@pytest.mark.parametrize("own", ["", "nonsense", "0::/../../escape\n", "0::relative\n"])
def test_no_limits_where_nothing_says_so(tmp_path: Path, own: str):
    path = tmp_path / "own"
    path.write_text(own)
    assert read_limits(tmp_path / "absent", path) == Limits()
