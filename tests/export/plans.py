"""Plans to export: true shapes on described machines, by formula. No engine is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from moestro.demo import model_path as demo_path
from moestro.export.deployment import Deployment
from moestro.hardware import hardware_named
from moestro.model import read_model
from moestro.planning import Planner, Settings, Wishes, make_plan
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.plan_file import PlanFile
from moestro.planning.settings import PlannedEngine
from tests.shapes import PUBLISHED, write_header

FOLDER = "/srv/models"
DESKTOP = "8 cores, 64 GiB DDR5-5600 dual channel"
WORKSTATION = "rtx-4090, 16 cores, 768 GiB DDR5-4800 12 channels"


@cache
def plan(model: str, machine: str, wishes: Wishes | None = None) -> PlanFile:
    """`model` is a name of `PUBLISHED`, or `demo`. Its file lies in `FOLDER`, as the plan says."""
    with tempfile.TemporaryDirectory() as folder:
        if model == "demo":
            path, name = demo_path(), "moestro-demo.gguf"
        else:
            name = f"{model}-Q4_K_M.gguf"
            path = write_header(PUBLISHED[model](), Path(folder) / name, vocab_tokens=256)
        spec, inventory = read_model(path), hardware_named(machine)
        speed = MachineSpeed(spec, inventory)
        made = make_plan(
            Planner(spec, inventory, wishes or Wishes(), speed), with_alternatives=False
        )
    found = PlanFile.of(made)
    return replace(found, model=replace(found.model, files=(f"{FOLDER}/{name}",)))


GOLDEN: dict[str, Callable[[], PlanFile]] = {
    "demo-cpu": lambda: plan("demo", DESKTOP),
    "one-gpu": lambda: plan("Qwen3.6-35B-A3B", "rtx-4090"),
    "experts-on-host": lambda: plan("DeepSeek-V3", WORKSTATION),
    "two-gpus": lambda: plan("Mixtral-8x7B", "rtx-4090, rtx-3060"),
    "mtp": lambda: plan("Qwen3.6-35B-A3B", "rtx-4090", Wishes(mtp=2)),
    "unified-q8": lambda: plan(
        "Qwen3-30B-A3B", DESKTOP, Wishes(cache_type="q8_0", unified=True, threads=6)
    ),
}


def deployment(name: str) -> Deployment:
    return Deployment.of(GOLDEN[name]())


def with_settings(base: Deployment, settings: Settings) -> Deployment:
    engine = PlannedEngine.called(settings.engine)
    return replace(base, plan=replace(base.plan, settings=settings, engine=engine))


def with_file(base: Deployment, path: str) -> Deployment:
    """The same plan for a model whose file lies elsewhere."""
    found = replace(base.plan, model=replace(base.plan.model, files=(path,)))
    return Deployment.of(found, base.host, base.port)
