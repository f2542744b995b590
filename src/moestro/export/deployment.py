"""What a target is told: the plan, and where it is to serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from moestro.export.location import file_name, is_safetensors
from moestro.gateway.defaults import DEFAULT_HOST
from moestro.model.splits import model_name
from moestro.planning.plan_file import PlanFile, PlannedMemory
from moestro.planning.settings import PlannedEngine, Settings

LLAMA_SERVER_PORT = 8080
"""llama-server's own."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan with an address. `name` is what clients call the model, `program` the path of the
    plan's engine, where it has one."""

    plan: PlanFile
    name: str
    host: str = DEFAULT_HOST
    port: int = LLAMA_SERVER_PORT
    program: str | None = None

    @staticmethod
    def of(
        plan: PlanFile,
        host: str = DEFAULT_HOST,
        port: int = LLAMA_SERVER_PORT,
        program: str | None = None,
    ) -> Deployment:
        first = plan.model.files[0]
        if is_safetensors(first):  # numbered parts: it is the folder that has a name
            return Deployment(plan, file_name(first.rpartition("/")[0]), host, port, program)
        name = model_name(PurePath(file_name(first)))
        return Deployment(plan, name if name.strip() else "model", host, port, program)

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    @property
    def engine(self) -> PlannedEngine:
        return self.plan.engine

    @property
    def model_path(self) -> str:
        """The file that is given to a server: the first part of a split one."""
        return self.plan.model.files[0]

    @property
    def locations(self) -> tuple[str, ...]:
        """Of all files: the model's, and the projector's last if there is one."""
        return (*self.plan.model.files, *filter(None, (self.plan.model.projector,)))

    @property
    def gpus(self) -> int:
        return len(self.plan.hardware.gpus)

    @property
    def memory(self) -> dict[str, PlannedMemory]:
        return {device.device: device for device in self.plan.memory}

    @property
    def host_bytes(self) -> int:
        """What the server takes of main memory."""
        return self.memory["CPU"].total_bytes
