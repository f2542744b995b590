"""What the installed engine is, and what it was built for."""

from __future__ import annotations

from dataclasses import dataclass

from moestro.hardware.gpu import Version


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """`build` is `cpu`, `metal`, `cu128`, …, None where nothing tells. `instruction_sets` are those
    that its processor code was compiled for, by the names of `hardware.Cpu.instruction_sets`.
    `gpus` counts the GPUs that it would use here. `capabilities` are those of NVIDIA's GPUs that it
    holds code for; a newer GPU's driver compiles the best of it anew. None where nothing tells."""

    name: str
    version: str
    build: str | None
    instruction_sets: tuple[str, ...]
    gpus: int
    capabilities: tuple[Version, ...] | None = None
