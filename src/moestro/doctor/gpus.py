"""The GPUs of a case, each with its name and its state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.hardware import Gpu
from moestro.hardware.gpu_state import GpuState


@dataclass(frozen=True, slots=True)
class CaseGpu:
    """`name` tells GPUs of one kind apart. `state` is None where nothing tells how it fares."""

    name: str
    gpu: Gpu
    state: GpuState | None

    @property
    def chosen(self) -> str:
        """The words with which nvidia-smi means this card alone; none where nothing tells its
        slot."""
        bus_id = self.state.bus_id if self.state is not None else None
        return f" -i {bus_id}" if bus_id is not None else ""


def gpus_of(case: Case) -> Iterator[CaseGpu]:
    """NVIDIA's and AMD's: of Apple's nothing here can be told."""
    gpus = case.inventory.gpus
    states = {state.index: state for state in case.gpu_states or ()}
    for index, gpu in enumerate(gpus):
        if gpu.vendor != "apple":
            name = f"GPU {index} ({gpu.name})" if len(gpus) > 1 else gpu.name
            yield CaseGpu(name, gpu, states.get(index))
