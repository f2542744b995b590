"""The options that CMake is given, so that an engine uses what this host has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.registry import Family
from moestro.hardware.gpu import Version
from moestro.hardware.tools import read_text

_CPUINFO = Path("/proc/cpuinfo")
_X86 = frozenset({"x86_64", "amd64", "AMD64", "i686"})

# llama.cpp's option → the kernel's flags that it takes, and the compiler's. AMX is left out: a
# build of release b11549 with it crashed on Q8_0 weights (docs/guides/engines.md). That is why
# GGML_NATIVE, which would take it, stays off on x86-64.
_X86_OPTIONS = {
    "GGML_SSE42": (("sse4_2",), "-msse4.2"),
    "GGML_AVX": (("avx",), "-mavx"),
    "GGML_F16C": (("f16c",), "-mf16c"),
    "GGML_FMA": (("fma",), "-mfma"),
    "GGML_AVX2": (("avx2",), "-mavx2"),
    "GGML_BMI2": (("bmi2",), "-mbmi2"),
    "GGML_AVX_VNNI": (("avx_vnni",), "-mavxvnni"),
    # The option means all five of them to ggml.
    "GGML_AVX512": (
        ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
        "-mavx512f",
    ),
    "GGML_AVX512_VBMI": (("avx512f", "avx512bw", "avx512vbmi"), "-mavx512vbmi"),
    "GGML_AVX512_VNNI": (("avx512f", "avx512bw", "avx512_vnni"), "-mavx512vnni"),
    "GGML_AVX512_BF16": (("avx512f", "avx512bw", "avx512_bf16"), "-mavx512bf16"),
}
_AMX = ("GGML_AMX_TILE", "GGML_AMX_INT8", "GGML_AMX_BF16")

_COMMON = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_CCACHE": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_CURL": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
}
_OF_FAMILY: dict[Family, dict[str, str]] = {
    "llama.cpp": {
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_APP": "OFF",
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",  # else it is downloaded while compiling
        "LLAMA_OPENSSL": "OFF",
    },
    "ik_llama.cpp": {
        "LLAMA_BUILD_EXAMPLES": "ON",  # its server is one of them
    },
}


@dataclass(frozen=True, slots=True)
class Host:
    """What a recipe depends on. `cpu_flags` are the kernel's own words, empty where nothing tells
    them. `cuda` is whether to compile for NVIDIA's GPUs, `capabilities` those of the GPUs here."""

    system: str
    machine: str
    cpu_flags: frozenset[str]
    cuda: bool = False
    capabilities: tuple[Version, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """`options` are CMake's, by name. `devices` are the kinds of device that it will compute on
    besides the processor."""

    options: dict[str, str]
    devices: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(f"-D{name}={value}" for name, value in self.options.items())


def recipe_for(family: Family, host: Host, accepts: Callable[[str], bool]) -> Recipe:
    """The options for `family` on `host`; `accepts` tells whether the compiler knows a flag."""
    options = {**_COMMON, **_OF_FAMILY[family], **_processor(family, host, accepts)}
    devices: tuple[str, ...] = ()
    if host.system == "Darwin" and host.machine == "arm64":
        options |= {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"}
        devices = ("Metal",)
    elif host.system == "Darwin":
        options["GGML_METAL"] = "OFF"
    if host.cuda:
        options["GGML_CUDA"] = "ON"
        if host.capabilities:
            numbers = sorted({major * 10 + minor for major, minor in host.capabilities})
            options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(map(str, numbers))
        devices = ("CUDA",)
    return Recipe(options, devices)


def parse_cpu_flags(text: str) -> frozenset[str]:
    """The first processor's words in `/proc/cpuinfo`."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def this_host(*, cuda: bool, capabilities: Iterable[Version] = ()) -> Host:
    import platform

    flags = parse_cpu_flags(read_text(_CPUINFO, most_bytes=1 << 14))
    return Host(platform.system(), platform.machine(), flags, cuda, tuple(capabilities))


def _processor(family: Family, host: Host, accepts: Callable[[str], bool]) -> dict[str, str]:
    """ik_llama.cpp has no code for AMX; on ARM ggml tries each set of instructions by itself."""
    if family == "ik_llama.cpp" or host.machine not in _X86 or not host.cpu_flags:
        return {"GGML_NATIVE": "ON"}
    options = {"GGML_NATIVE": "OFF"}
    for option, (needed, flag) in _X86_OPTIONS.items():
        has = host.cpu_flags.issuperset(needed) and accepts(flag)
        options[option] = "ON" if has else "OFF"
    return options | dict.fromkeys(_AMX, "OFF")
