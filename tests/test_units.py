from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.errors import UsageError
from moestro.units import (
    GIB,
    MIB,
    format_bandwidth,
    format_bytes,
    format_count,
    format_rate,
    parse_bandwidth,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("20GiB", 20 * GIB),
        ("512 MiB", 512 * MIB),
        ("1.5GB", 1_500_000_000),
        ("0", 0),
        ("1tib", 1 << 40),
        ("7 B", 7),
    ],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "20G", "-1GiB", "1e9", "20 GiB extra", "nan"])
def test_parse_size_refuses_what_is_ambiguous(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("1.5h", 5400), ("30", 30), ("250ms", 0.25)]
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["9" * 400, "9" * 5000 + "GiB", "9" * 400 + ".5 GB", "8388608 TiB", str(1 << 63)]
)
def test_parse_size_refuses_more_than_any_machine_holds(text: str) -> None:
    with pytest.raises(UsageError, match="more than any machine holds") as caught:
        parse_size(text)
    assert caught.value.hint
    assert len(caught.value.sentence) < 100


def test_parse_size_takes_what_an_integer_of_64_bits_holds() -> None:
    assert parse_size("8388607 TiB") == 8388607 << 40


@pytest.mark.parametrize("text", ["9" * 400 + "s", "36501d"])
def test_parse_duration_refuses_more_than_a_century(text: str) -> None:
    with pytest.raises(UsageError, match="more than a hundred years") as caught:
        parse_duration(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["9" * 400 + " GB/s", "9300000000 GB/s", "0 GB/s", "0.5 B/s"])
def test_parse_bandwidth_refuses_what_no_machine_has(text: str) -> None:
    with pytest.raises(UsageError, match=r"more than any machine moves|less than a byte") as caught:
        parse_bandwidth(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "soon", "5 fortnights", "-3s"])
def test_parse_duration_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (20_480, "20.0 KiB"),
        (160 * MIB, "160 MiB"),
        (999 * MIB, "999 MiB"),
        (1000 * MIB, "0.98 GiB"),
        (386 * GIB, "386 GiB"),
    ],
)
def test_format_bytes(size_bytes: int | None, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(min_value=1, max_value=1 << 50))
def test_what_is_printed_reads_back_within_one_percent(size_bytes: int) -> None:
    assert parse_size(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (999, "999"),
        (34_660_610_688, "34.66 B"),
        (134_515_008, "134.5 M"),
        (999_999_999, "1.00 B"),
        (1_600_000_000_000, "1.60 T"),
    ],
)
def test_format_count(count: int | None, text: str) -> None:
    assert format_count(count) == text


def test_format_rate() -> None:
    assert format_rate(143.2) == "143 tokens/s"
    assert format_rate(8.44) == "8.4 tokens/s"
    assert format_rate(None) == "? tokens/s"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("89.6 GB/s", 89.6e9),
        ("1.8TB/s", 1.8e12),
        ("7 GiB/s", 7.0 * GIB),
        ("450 MB / s", 450e6),
        ("100 b/s", 100.0),
    ],
)
def test_parse_bandwidth(text: str, rate: float) -> None:
    assert parse_bandwidth(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "80", "80 GB", "80/s", "GB/s", "80 GB/h", "80 Gb/s/s", "-1 GB/s"]
)
def test_parse_bandwidth_refuses_what_lacks_a_unit(text: str) -> None:
    with pytest.raises(UsageError):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "?"),
        (1008e9, "1008 GB/s"),
        (89.6e9, "89.6 GB/s"),
        (8.5e9, "8.50 GB/s"),
        (0.45e9, "450 MB/s"),
        (9.999e9, "10.0 GB/s"),
        (99.97e9, "100 GB/s"),
    ],
)
def test_format_bandwidth(rate: float | None, text: str) -> None:
    assert format_bandwidth(rate) == text
