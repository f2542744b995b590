"""The engine's build against the processor's instructions.

The published build for processors is compiled for AVX2 (x86-64) or for the first ARMv8 and takes no
more on newer ones; `moestro engines build` makes one of the same release that does.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.engine.facts import EngineFacts
from moestro.engine.llama_cpp.facts import ILLEGAL_INSTRUCTION
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE
from moestro.errors import MoestroError
from moestro.findings import Finding, Severity

_WORTH_A_BUILD = ("AVX-VNNI", "AVX-512", "AVX-512-VNNI", "AVX-512-BF16", "DOTPROD", "I8MM")
"""What ggml has faster products of quantized weights for; wider sets bring little beside them. AMX
is not among them: this release built with it crashed on Q8_0 weights (docs/guides/engines.md)."""

# The switch that a build of one's own needs to have the same GPU code as a published build.
_SWITCHES = {"cu": "CUDA", "rocm": "HIP", "vulkan": "VULKAN"}


def _run(case: Case) -> Iterator[Finding]:
    engine, has = case.engine, set(case.inventory.cpu.instruction_sets)
    if isinstance(engine, MoestroError):
        illegal = engine.code == ILLEGAL_INSTRUCTION
        yield Finding(
            Severity.FAIL,
            "cpu-lacks-instructions" if illegal else "engine-unusable",
            "The engine cannot be used" if not illegal else "The engine does not run here",
            engine.sentence,
            engine.hint
            or f"Reinstall it: pip install --force-reinstall {PACKAGE}=={EXPECTED_VERSION}",
        )
        return
    if engine is None or not has or not engine.instruction_sets:
        return
    lacking = [name for name in engine.instruction_sets if name not in has]
    unused = [name for name in _WORTH_A_BUILD
              if name in has and name not in engine.instruction_sets]  # fmt: skip
    evidence = f"compiled for {', '.join(engine.instruction_sets)}"
    if lacking:
        yield Finding(
            Severity.FAIL,
            "cpu-lacks-instructions",
            "The engine was compiled for instructions that this processor does not have",
            f"{evidence}; the processor has no {', '.join(lacking)}",
            f"Compile the same release for this processor. {_compile(engine)}",
        )
    elif unused and engine.build != "metal":  # there the GPU computes
        yield Finding(
            Severity.INFO,
            "engine-below-cpu",
            "The engine's build does not use all that this processor can do",
            f"{evidence}; the processor also has {', '.join(unused)}",
            _native(engine),
        )
    else:
        yield ok("engine-build", "The engine's build suits this processor", evidence)


def _native(engine: EngineFacts) -> str:
    """An engine beside the embedded one; for GPUs other than NVIDIA's only the package's own build
    has their code."""
    if (engine.build or "").startswith(("rocm", "vulkan")):
        return (
            "Compile the same release for this processor in an environment of its own, and "
            f"compare. {_compile(engine)}"
        )
    cuda = " --cuda" if (engine.build or "").startswith("cu") else ""
    return (
        "Compile the same release for this processor, a quarter of an hour or so, and let moestro "
        f"tune find out what it is worth: moestro engines build llama.cpp{cuda}"
    )


def _compile(engine: EngineFacts) -> str:
    kinds = (kind for start, kind in _SWITCHES.items() if (engine.build or "").startswith(start))
    switch = "".join(f"XLLAMACPP_BUILD_{kind}=1 " for kind in kinds)
    return (
        "That takes a C++ compiler, CMake, Rust, a network and a while: "
        f"{switch}pip install --force-reinstall --no-deps --no-binary {PACKAGE} "
        f"{PACKAGE}=={EXPECTED_VERSION}"
    )


CHECK = Check("engine-build", "machine", "Is the engine built for this processor?", _run)
