"""Which file of a repository is taken."""

from __future__ import annotations

from dataclasses import replace

from moestro.planning.pick import Option, pick
from moestro.units import GIB

SIZES = {"Q2_K": 2.7, "Q3_K_M": 3.6, "Q4_K_M": 4.8, "Q5_K_M": 5.7, "Q6_K": 6.6, "Q8_0": 8.5}


def options(host: float, gpu: float = 0.0) -> list[Option]:
    """Every size, of which those up to `gpu` bits fit the GPU, and up to `host` bits fit at all."""
    return [
        Option(label, int(bits * 100), bits, fits=bits <= max(host, gpu), on_gpus=bits <= gpu)
        for label, bits in SIZES.items()
    ]


def picked(host: float, gpu: float = 0.0) -> str | None:
    found = pick(options(host, gpu))
    return found[0].label if found else None


def test_a_large_gpu_gets_six_bits_not_eight() -> None:
    assert picked(16, gpu=16) == "Q6_K"
    _, because = pick(options(16, gpu=16)) or (None, "")
    assert "up to Q6_K's 6.6 bits" in because


def test_a_smaller_gpu_gets_what_fits_it_whole() -> None:
    assert picked(16, gpu=5.0) == "Q4_K_M"
    assert picked(16, gpu=6.0) == "Q5_K_M"


def test_where_the_host_computes_fewer_bytes_win() -> None:
    assert picked(16) == "Q4_K_M"
    assert picked(16, gpu=3.0) == "Q4_K_M"


def test_too_little_memory_for_four_bits() -> None:
    assert picked(4) == "Q3_K_M"
    found = pick(options(3))
    assert found is not None
    assert "none of 4 bits or more" in found[1]
    assert picked(1) is None


def test_where_the_host_computes_the_faster_kernel_wins_over_fewer_bytes() -> None:
    """IQ4_XS has fewer bytes than Q4_K_M, and on many processors takes longer."""
    files = [
        Option("IQ4_XS", 4 * GIB, 4.3, True, False, 30.0),
        Option("Q4_K_M", 5 * GIB, 4.9, True, False, 25.0),
        Option("Q8_0", 8 * GIB, 8.5, True, False, 40.0),
    ]
    best, because = pick(files) or (None, "")
    assert best is files[1]
    assert "fastest" in because
    unknown = [replace(option, request_seconds=None) for option in files]
    assert (pick(unknown) or (None,))[0] == unknown[0]
