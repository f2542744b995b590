"""Plans for the round trip: tiny models that run, and settings of which each has several values.

`gpus` counts devices over RPC. They are on the processor, so a plan for them is not made by the
planner: its settings are given, on a machine that is described.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.tiny_models import write_tiny

from moestro.demo import model_path
from moestro.export.deployment import Deployment
from moestro.hardware import hardware_named
from moestro.model import read_model
from moestro.planning import Planner, Wishes, make_plan
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.plan_file import PlanFile

_MACHINES = (
    "2 cores, 16 GiB DDR5-5600 dual channel",
    "rtx-4090, 2 cores",
    "2 x rtx-4090, 2 cores",
)


@dataclass(frozen=True)
class Case:
    """`file_name` names the model's file anew; `set` replaces settings of the plan."""

    name: str
    model: str
    gpus: int = 0
    file_name: str | None = None
    set: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("demo as planned", "demo"),
    Case("dense", "llama", set={"context": 300, "parallel": 3, "ubatch": 64, "threads": 1}),
    Case("experts", "qwen3moe", set={"cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
    Case("uneven cache types", "gpt-oss", set={"cache_type_k": "q8_0", "flash_attention": "on"}),
    Case("no flash attention", "olmoe", set={"flash_attention": "off", "cache_type_k": "bf16"}),
    Case("shared cache", "qwen2moe", set={"unified": True, "context": 1024, "parallel": 4}),
    Case("sliding window", "gpt-oss", set={"context": 512, "parallel": 2, "ubatch": 32}),
    Case("hybrid", "qwen3next", set={"context_checkpoints": 3, "prompt_cache_bytes": 50 << 20}),
    Case("hybrid, drafting", "qwen35moe", set={"mtp_depth": 2, "parallel": 2}),
    Case("hybrid, dense, drafting", "qwen35", set={"mtp_depth": 4, "ubatch": 8, "parallel": 3}),
    Case("demo, drafting, shared", "demo", set={"mtp_depth": 1, "unified": True, "parallel": 5}),
    Case("latent attention", "deepseek2", set={"context_checkpoints": 0, "prompt_cache_bytes": 0}),
    Case(
        "small cache types", "demo",
        set={"cache_type_k": "q4_0", "cache_type_v": "q5_1", "flash_attention": "on"},
    ),
    Case("a file name for shells", "qwen3moe", file_name="it's 100% $HOME \"model\" [v1].gguf"),
    Case("all on one GPU", "qwen3moe", gpus=1),
    Case("half on one GPU", "llama", gpus=1, set={"gpu_layers": 2}),
    Case("nothing on a GPU", "qwen3moe", gpus=1, set={"gpu_layers": 0}),
    Case("cache in main memory", "qwen3moe", gpus=1, set={"cache_on_host": True}),
    Case("some experts in main memory", "demo", gpus=1, set={"cpu_expert_layers": 2}),
    Case("a dense block first", "deepseek2", gpus=1, set={"cpu_expert_layers": 1}),
    Case("dense first, all experts", "lfm2moe", gpus=1, set={"cpu_expert_layers": 3}),
    Case(
        "an expert cache", "demo", gpus=1,
        set={"cpu_expert_layers": 4, "expert_cache_bytes": 8 << 20},
    ),
    Case(
        "a larger expert cache, drafting", "demo", gpus=1,
        set={"cpu_expert_layers": 3, "expert_cache_bytes": 12 << 20, "mtp_depth": 2},
    ),
    Case("drafting on a GPU", "qwen35moe", gpus=1, set={"mtp_depth": 3, "parallel": 1}),
    Case("two GPUs, uneven", "demo", gpus=2, set={"tensor_split": (2.0, 1.0)}),
    Case(
        "two GPUs, thirds", "demo", gpus=2,
        set={"tensor_split": (1 / 3, 2 / 3), "cpu_expert_layers": 3},
    ),
    Case("two GPUs, part", "demo", gpus=2, set={"tensor_split": (0.4, 0.6), "gpu_layers": 4}),
)  # fmt: skip


def deployment(case: Case, folder: Path, port: int) -> Deployment:
    """The plan for the case's model, which is written into `folder`."""
    path = model_path() if case.model == "demo" else write_tiny(case.model, folder)
    if case.file_name is not None:
        path = path.rename(folder / case.file_name)
    spec, machine = read_model(path), hardware_named(_MACHINES[case.gpus])
    planner = Planner(spec, machine, Wishes(threads=2), MachineSpeed(spec, machine))
    plan = PlanFile.of(make_plan(planner, with_alternatives=False))
    settings = replace(plan.settings, **case.set)
    return Deployment.of(replace(plan, settings=settings), port=port)
