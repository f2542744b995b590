"""A healthy workstation with a clean model, made of files and facts, for tests to break."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from moestro.cli.planning import forecaster_for
from moestro.demo import model_path
from moestro.doctor.case import Address, Case, ModelCase
from moestro.doctor.host import Host, Limit
from moestro.doctor.template.report import Rendering, TemplateReport
from moestro.engine.facts import EngineFacts
from moestro.engine.tokenizer import RoundTrip, TokenizerReport
from moestro.hardware import Bandwidth, Cpu, Disk, Gpu, Inventory, Link, Memory
from moestro.hardware.gpu_state import GpuState
from moestro.model import LocalFile, ModelSpec, read_model
from moestro.model.completeness import Completeness, FileState
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.units import GIB, MIB
from moestro.verify.stored import StoredVerdict

LIMITS: dict[str, Limit] = {
    "as": (None, None),
    "core": (0, None),
    "data": (None, None),
    "memlock": (8 * GIB, 8 * GIB),
    "nofile": (65536, 65536),
    "nproc": (256000, 256000),
    "stack": (8 * MIB, None),
}

GPU_LINK = Link(generation=4, width=16, max_generation=4, max_width=16)


def inventory() -> Inventory:
    return Inventory(
        name=None,
        source="this machine",
        system="Linux",
        cpu=Cpu(
            model="AMD Ryzen 9 7950X 16-Core Processor",
            architecture="x86_64",
            physical_cores=16,
            usable_cores=16,
            instruction_sets=("SSE4.2", "AVX", "F16C", "FMA", "AVX2", "BMI2"),
            numa_nodes=1,
        ),
        memory=Memory(
            total_bytes=64 * GIB,
            available_bytes=56 * GIB,
            swap_total_bytes=8 * GIB,
            swap_free_bytes=8 * GIB,
            kind="DDR5-5600",
            channels=2,
            bandwidth=Bandwidth(70e9, "measured"),
        ),
        disks=(Disk("nvme0n1", "/", "nvme", 500 * GIB, Bandwidth(5e9, "measured")),),
        gpus=(
            Gpu(
                "nvidia",
                "NVIDIA GeForce RTX 4090",
                memory_bytes=24 * GIB,
                free_bytes=24 * GIB - 200 * MIB,
                capability=(8, 9),
                bandwidth=Bandwidth(1008e9, "catalogue"),
                link=GPU_LINK.with_peak(),
                tflops_f16=165.2,
                display=False,
            ),
        ),
    )


def gpu_state() -> GpuState:
    return GpuState(
        index=0,
        vendor="nvidia",
        name="NVIDIA GeForce RTX 4090",
        bus_id="0000:01:00.0",
        temperature_c=38.0,
        slowdown_c=90.0,
        power_watts=22.0,
        power_limit_watts=450.0,
        default_power_limit_watts=450.0,
        busy=0.0,
        reasons=(),
        link=GPU_LINK,
        uncorrected=0,
        remap_pending=False,
        processes=(),
    )


def engine() -> EngineFacts:
    sets = ("AVX", "F16C", "FMA", "AVX2", "BMI2")
    return EngineFacts("llama.cpp (xllamacpp)", "2026.10.11549", "cu128", sets, gpus=1)


def template_report() -> TemplateReport:
    said = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    return TemplateReport(
        renderings=tuple(
            Rendering(conversation, "rendered", said)
            for conversation in ("plain", "system", "turns", "tools")
        ),
        opens_answer=True,
        keeps_prefix=True,
        engine="accepted",
    )


def tokenizer_report() -> TokenizerReport:
    return TokenizerReport(
        vocabulary=4096,
        bos=None,
        eos="<|im_end|>",
        add_bos=False,
        ends=("<|im_end|>",),
        round_trips=(RoundTrip("Hello, world.", 4, "Hello, world."),),
        single={"<|im_start|>": True, "<|im_end|>": True},
    )


@cache
def spec() -> ModelSpec:
    return read_model(LocalFile(model_path()))


@cache
def planned(wishes: Wishes = Wishes()) -> Plan:  # noqa: B008
    machine = inventory()
    return make_plan(Planner(spec(), machine, wishes, forecaster_for(spec(), machine)))


def model() -> ModelCase:
    path = model_path()
    size = path.stat().st_size
    return ModelCase(
        spec=spec(),
        paths=(path,),
        completeness=Completeness((FileState(path, size, 0, "ab" * 32, "a hub", "ab" * 32),)),
        template=template_report(),
        tokenizer=tokenizer_report(),
        verdict=StoredVerdict(
            "pass", datetime(2026, 11, 1, tzinfo=UTC), "reference.gguf", "default", 16384,
            ("ab" * 32,), ((str(path), size, 0),), (),
        ),
    )  # fmt: skip


class Workshop:
    """Files under `root` stand for `/proc` and `/sys`; `case` puts all facts together."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        for path, text in files.items():
            self.write(path, text)

    def write(self, path: str, text: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def host(self, **changes: Any) -> Host:
        facts: dict[str, Any] = {
            "root": self.root, "system": "Linux", "limits": LIMITS, "environment": {},
            "superuser": False,
        }  # fmt: skip
        return Host(**{**facts, **changes})

    def limited(self, **limits: int | None) -> Host:
        """The host with other soft limits: `workshop.limited(nofile=256)`."""
        return self.host(limits={**LIMITS, **{n: (v, v) for n, v in limits.items()}})

    def case(self, **changes: Any) -> Case:
        """All is well, but for `changes` (fields of `Case`)."""
        facts: dict[str, Any] = {
            "host": self.host(),
            "inventory": inventory(),
            "engine": engine(),
            "gpu_states": (gpu_state(),),
            "model": model(),
            "plan": planned(),
            "address": Address("127.0.0.1", 0),
        }
        return Case(**{**facts, **changes})

    def with_gpu(self, **changes: Any) -> Case:
        """The healthy case with another state of its GPU."""
        return self.case(gpu_states=(replace(gpu_state(), **changes),))
