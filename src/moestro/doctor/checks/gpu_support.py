"""The GPUs against the engine's build and against flash attention.

The rules are llama.cpp's, release b11549 (`ggml/src/ggml-cuda`). Its flash attention is code of its
own, not the package of that name that needs Ampere: `ggml_cuda_get_best_fattn_kernel` in `fattn.cu`
has kernels for every NVIDIA GPU that the build has code for. They use tensor cores from capability
7.0 (Volta; `volta_mma_available`, `turing_mma_available` in `common.cuh`), and plain arithmetic
below. Which GPUs a build has code for: `CMakeLists.txt` there, and what the build says of itself
(`ARCHS`). Which driver it needs: `engine.llama_cpp.builds`.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.gpus import CaseGpu, gpus_of
from moestro.engine.facts import EngineFacts
from moestro.engine.llama_cpp.facts import obstacle
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE
from moestro.findings import Finding, Severity
from moestro.hardware.gpu import Vendor, Version

_TENSOR_CORES = (7, 0)
_INSTALL = (
    "“make clean up” in moestro's folder installs the build for this machine's GPUs. Where moestro "
    "was installed with pip: python -m moestro.engine.llama_cpp.builds --json names the build, why "
    "it is that one, and its index_url; then pip install --force-reinstall --no-deps --index-url "
    f"INDEX_URL {PACKAGE}=={EXPECTED_VERSION}"
)
_SEE: dict[str, str] = {
    "nvidia": (
        "See that nvidia-smi lists them where moestro runs; a container has to be given them "
        "(docker run --gpus all), and this user has to be allowed to open /dev/nvidia*."
    ),
    "amd": (
        "See that rocminfo lists them where moestro runs; a container has to be given them (docker "
        "run --device /dev/kfd --device /dev/dri), and this user has to be in the groups render "
        "and video."
    ),
}
_VENDORS: dict[str, tuple[Vendor, ...]] = {
    "cu": ("nvidia",), "rocm": ("amd",), "vulkan": ("nvidia", "amd"), "metal": ("apple",),
    "cpu": (),
}  # fmt: skip
"""Beginnings of a build's name, and whose cards it computes on."""

_HIDES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
          "GGML_VK_VISIBLE_DEVICES")  # fmt: skip


def _run(case: Case) -> Iterator[Finding]:
    engine, gpus = case.engine, list(gpus_of(case))
    if not isinstance(engine, EngineFacts) or not gpus:
        return
    troubles = [*_code(engine, gpus), *_seen(case, engine, gpus)]
    yield from troubles
    slow = list(_slow_attention(gpus))
    yield from slow
    if not troubles and not slow:
        names = ", ".join(found.name for found in gpus)
        yield ok("gpu-support", "The engine's build suits the GPUs", f"{engine.build}: {names}")


def _code(engine: EngineFacts, gpus: list[CaseGpu]) -> Iterator[Finding]:
    """Cards that the build has no code for, and drivers that do not know its code. Where the engine
    sees no GPU at all it computes on the processor instead of failing."""
    severity = Severity.FAIL if engine.gpus else Severity.WARN
    for found in gpus:
        capability = found.gpu.capability
        if capability is None:
            continue
        if engine.capabilities and capability < min(engine.capabilities):
            yield Finding(
                severity,
                "gpu-too-old",
                f"The engine's build has no code for {found.name}",
                f"compute capability {_dotted(capability)}; build {engine.build} begins at "
                f"{_dotted(min(engine.capabilities))}",
                f"{_INSTALL} CUDA 12.8 is the last with code for GPUs before Turing.",
            )
            continue
        driver = found.state.driver_cuda if found.state is not None else None
        why = obstacle(engine.build or "", found.gpu, driver) if driver is not None else None
        if why is not None and driver is not None:
            yield Finding(
                severity,
                "gpu-driver-too-old",
                f"The driver of {found.name} is too old for the engine's build",
                f"{why}; the driver runs CUDA {_dotted(driver)}",
                f"Update the NVIDIA driver. Or: {_INSTALL}",
            )


def _seen(case: Case, engine: EngineFacts, gpus: list[CaseGpu]) -> Iterator[Finding]:
    """`engine.gpus` counts what the build could use, after what the environment hides."""
    served = _served(engine.build, gpus)
    if engine.gpus >= len(gpus):
        return
    hidden = [f"{name}={case.host.environment[name]}" for name in _HIDES
              if name in case.host.environment]  # fmt: skip
    names = ", ".join(found.name for found in gpus)
    evidence = "; ".join([f"{names}; build {engine.build or 'unknown'}", *hidden])
    divided = [found.name for found in gpus if found.state is not None and found.state.divided]
    if engine.gpus == 0:
        fix = "Unset what hides the GPUs." if hidden else _INSTALL
        if served and not hidden:
            fix = _see(served)
            if divided:
                fix = f"{_OF_SLICES} {fix}"
        slices = f"; MIG divides {', '.join(divided)}" if divided else ""
        yield Finding(
            Severity.WARN,
            "engine-without-gpu",
            "There is a GPU, and the engine does not use it",
            f"{evidence}; it sees no GPU{slices}",
            fix,
        )
    elif divided:
        yield Finding(
            Severity.INFO,
            "engine-sees-a-slice",
            "MIG divides a GPU, and the engine computes on one slice of it",
            f"{evidence}; MIG divides {', '.join(divided)}",
            f"{_OF_SLICES} Without MIG (sudo nvidia-smi -mig 0, when nothing runs on the card) the "
            "engine has all of it.",
        )
    elif engine.gpus < len(served):
        yield Finding(
            Severity.WARN,
            "engine-sees-fewer-gpus",
            f"The engine sees {engine.gpus} of {len(served)} GPUs",
            evidence,
            "Unset what hides the others, if they are to be used." if hidden else _see(served),
        )
    else:
        left = ", ".join(found.name for found in gpus if found not in served)
        yield Finding(
            Severity.INFO,
            "gpu-of-another-vendor",
            f"The engine's build does not compute on {left}",
            evidence,
            "Nothing needs to be done: a build is for the cards of one vendor, and it sees all of "
            "those.",
        )


_OF_SLICES = "nvidia-smi -L lists the slices; CUDA_VISIBLE_DEVICES with the name of one chooses it."


def _served(build: str | None, gpus: list[CaseGpu]) -> list[CaseGpu]:
    """Those that the build is for; where nothing tells what it is for, all."""
    for start, vendors in _VENDORS.items():
        if build is not None and build.startswith(start):
            return [found for found in gpus if found.gpu.vendor in vendors]
    return gpus


def _see(gpus: list[CaseGpu]) -> str:
    return " ".join(_SEE[vendor] for vendor in dict.fromkeys(found.gpu.vendor for found in gpus))


def _slow_attention(gpus: list[CaseGpu]) -> Iterator[Finding]:
    for found in gpus:
        capability = found.gpu.capability
        if capability is not None and capability < _TENSOR_CORES:
            yield Finding(
                Severity.INFO,
                "flash-attention-slow",
                f"{found.name} has no tensor cores: long prompts are read slowly",
                f"compute capability {_dotted(capability)}; flash attention works there, with "
                "kernels that do without",
                "Keep prompts short, and measure both ways: moestro up MODEL --flash-attention off",
            )


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


CHECK = Check("gpu-support", "machine", "Can the engine's build use the GPUs, and well?", _run)
