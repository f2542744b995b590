"""What the engine's own allocator takes: the truth of the memory questions.

A dry run lays the model out exactly as a start would, over the host alone or over a GPU that is
not there (`moestro.engine.llama_cpp.dry_run`), and `memory_truth.py` holds it against real starts.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from bench.planner.questions import GIB, Hardware, Question
from moestro.engine.llama_cpp.dry_run import DeviceMemory, DryRun, EngineMemory
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.errors import EngineStartFailed
from moestro.model import read_model
from moestro.planning.placement import expert_blocks
from moestro.planning.settings import CacheType, Settings

DRIVER_BYTES = 500 * 2**20
"""Assumed: what a CUDA context and its libraries' workspaces take beside the engine's buffers."""

SYSTEM_BYTES = 2 * GIB
"""Assumed: what the operating system keeps of the host's memory."""


def settings_of(question: Question) -> Settings:
    cache_type = cast(CacheType, question.cache_type)
    return Settings(
        context=question.context,
        parallel=question.parallel,
        threads=2,
        ubatch=question.ubatch,
        cache_type_k=cache_type,
        cache_type_v=cache_type,
        flash_attention="on",
    )


def engine_truth(model: Path, settings: Settings) -> DeviceMemory:
    """The whole model in host memory: weights, cache and compute, to the byte."""
    with DryRun(model, ()) as run:
        (host,) = run.memory(settings).devices
    return host


@dataclass(frozen=True)
class Load:
    """What one placement takes of a machine. `free_bytes` is negative where it does not fit."""

    gpu_bytes: int
    host_bytes: int
    gpu_free_bytes: int
    host_free_bytes: int

    @property
    def fits(self) -> bool:
        return self.gpu_free_bytes >= 0 and self.host_free_bytes >= 0


class Machine:
    """The engine's plans of one model on one machine with one GPU."""

    def __init__(self, model: Path, question: Question, hardware: Hardware) -> None:
        self._hardware = hardware
        self._settings = settings_of(question)
        self._stack = ExitStack()
        gpu = VirtualDevice("GPU0", hardware.gpu_memory_bytes, hardware.gpu_memory_bytes)
        self._spec = read_model(model)
        self._run = self._stack.enter_context(DryRun(self._spec, (gpu,)))

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def expert_layers(self) -> int:
        return len(expert_blocks(self._spec))

    def load(self, *, cpu_expert_layers: int = 0, gpu_layers: int | None = None) -> Load:
        """`cpu_expert_layers` counts blocks that have experts.

        Raises:
            EngineStartFailed: the engine refuses these settings.
        """
        settings = replace(
            self._settings, cpu_expert_layers=cpu_expert_layers, gpu_layers=gpu_layers
        )
        return self._load(self._run.memory(settings))

    def load_by_flags(self, n_cpu_moe: int, gpu_layers: int | None) -> Load:
        """As llama.cpp takes them: `--n-cpu-moe` counts blocks from 0, experts or none."""
        counted = sum(block < n_cpu_moe for block in expert_blocks(self._spec))
        return self.load(cpu_expert_layers=counted, gpu_layers=gpu_layers)

    def fewest_cpu_expert_layers(self) -> int | None:
        """The least that fits with every layer on the GPU; None where nothing does."""
        low, high = 0, self.expert_layers
        if not self.load(cpu_expert_layers=high).fits:
            return None
        while low < high:
            middle = (low + high) // 2
            if self.load(cpu_expert_layers=middle).gpu_free_bytes >= 0:
                high = middle
            else:
                low = middle + 1
        return low if self.load(cpu_expert_layers=low).fits else None

    def _load(self, memory: EngineMemory) -> Load:
        by_name = {device.device: device.total_bytes for device in memory.devices}
        gpu = by_name["GPU0"] + DRIVER_BYTES
        host = by_name["CPU"]
        return Load(
            gpu,
            host,
            self._hardware.gpu_memory_bytes - gpu,
            self._hardware.ram_bytes - SYSTEM_BYTES - host,
        )


__all__ = ["EngineStartFailed", "Load", "Machine", "engine_truth", "settings_of"]
