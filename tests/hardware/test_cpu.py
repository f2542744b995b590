from __future__ import annotations

import os
import platform

import pytest

from moestro.errors import HardwareError
from moestro.hardware.cpu import (
    Cpu,
    allowed_cpus,
    parse_apple_features,
    parse_id_list,
    parse_instruction_sets,
    parse_model,
    this_cpu,
)
from moestro.hardware.limits import Limits

# Shortened from real machines.
X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC  7B13
flags\t\t: fpu sse4_2 avx f16c fma avx2 bmi2 avx512f avx512_vnni amx_tile

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd evtstrm aes asimddp fphp sve i8mm bf16
CPU implementer\t: 0x41
"""
APPLE = """\
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.arm.FEAT_FP16: 1
"""


def test_models():
    assert parse_model(X86) == "AMD EPYC 7B13"
    assert parse_model("processor : 0\nModel : Raspberry Pi 5 Model B\n") == (
        "Raspberry Pi 5 Model B"
    )
    assert parse_model(ARM) is None
    assert parse_model("") is None


def test_instruction_sets():
    assert parse_instruction_sets(X86) == (
        "SSE4.2", "AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX-512", "AVX-512-VNNI", "AMX",
    )  # fmt: skip
    assert parse_instruction_sets(ARM) == ("NEON", "FP16", "DOTPROD", "I8MM", "BF16", "SVE")
    assert parse_instruction_sets("") == ()
    assert parse_apple_features(APPLE) == ("NEON", "FP16", "DOTPROD", "I8MM")


@pytest.mark.parametrize(
    ("text", "count"),
    [("0\n", 1), ("0-1\n", 2), ("0,2-3,7\n", 4), ("", None), ("x", None), ("3-1", None)],
)
def test_id_list(text: str, count: int | None):
    assert parse_id_list(text) == count


def test_this_cpu_agrees_with_the_system():
    cpu = this_cpu(Limits())
    assert cpu.architecture == platform.machine()
    assert 1 <= cpu.usable_cores <= allowed_cpus()
    assert this_cpu(Limits(cores=0.5)).usable_cores == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_affinity_is_respected():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cpus() == 1
        assert this_cpu(Limits()).usable_cores == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, "", 4, 4),
        (None, "x86_64", 0, 4),
        (None, "x86_64", 4, 0),
        (None, "x86_64", 4, -1),
        (None, "x86_64", 4, 4, (), 0),
    ],
)
def test_impossible_processors(arguments: tuple[object, ...]):
    with pytest.raises(HardwareError):
        Cpu(*arguments)  # type: ignore[arg-type]
