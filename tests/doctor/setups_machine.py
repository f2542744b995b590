"""The machine, broken on purpose: slots, modules, clocks, heat, neighbours, disks, builds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moestro.doctor.case import Case
from moestro.errors import EngineMismatch
from moestro.findings import Severity
from moestro.hardware import Bandwidth, Gpu, Link
from moestro.hardware.gpu_state import GpuState
from moestro.planning import Plan
from moestro.units import GIB, MIB
from tests.doctor import workshop as healthy
from tests.doctor.healthy_machine import CPUFREQ, GROUP, policy, sensors
from tests.doctor.setups import Setup
from tests.doctor.setups_memory import host_weights, with_lines
from tests.doctor.workshop import Workshop
from tests.hardware.smbios_writer import DDR4, board

WARN, FAIL, INFO = Severity.WARN, Severity.FAIL, Severity.INFO
TABLE = "sys/firmware/dmi/tables/DMI"

FOUR_SLOTS = (
    ("DIMM 0", "P0 CHANNEL A"),
    ("DIMM 1", "P0 CHANNEL A"),
    ("DIMM 0", "P0 CHANNEL B"),
    ("DIMM 1", "P0 CHANNEL B"),
)


def cpu(workshop: Workshop, **changes: Any) -> Case:
    machine = healthy.inventory()
    return workshop.case(inventory=replace(machine, cpu=replace(machine.cpu, **changes)))


def memory(workshop: Workshop, **changes: Any) -> Case:
    machine = healthy.inventory()
    return workshop.case(inventory=replace(machine, memory=replace(machine.memory, **changes)))


def disk(workshop: Workshop, **changes: Any) -> Case:
    machine = healthy.inventory()
    disks = tuple(replace(found, **changes) for found in machine.disks)
    return workshop.case(inventory=replace(machine, disks=disks))


def engine(workshop: Workshop, **changes: Any) -> Case:
    return workshop.case(engine=replace(healthy.engine(), **changes))


def gpus(
    *found: Gpu, state: GpuState | None = None, **engine_changes: Any
) -> Callable[[Workshop], Case]:
    """Other cards, the first of them with a state, and an engine to go with them."""

    def change(workshop: Workshop) -> Case:
        return workshop.case(
            inventory=replace(healthy.inventory(), gpus=found),
            gpu_states=(state or healthy.gpu_state(),),
            engine=replace(healthy.engine(), gpus=len(found), **engine_changes),
        )

    return change


def card(**changes: Any) -> Gpu:
    return replace(healthy.inventory().gpus[0], **changes)


def state(**changes: Any) -> GpuState:
    return replace(healthy.gpu_state(), **changes)


P40 = card(name="Tesla P40", capability=(6, 1))


def files(written: dict[str, str]) -> Callable[[Workshop], Case]:
    def change(workshop: Workshop) -> Case:
        for path, text in written.items():
            workshop.write(path, text)
        return workshop.case()

    return change


def modules(sizes: tuple[int, ...], **all_of_them: Any) -> Callable[[Workshop], Case]:
    """GiB in each of four slots; nothing was measured."""

    def change(workshop: Workshop) -> Case:
        workshop.write(TABLE, board(dict(zip(FOUR_SLOTS, sizes, strict=True)), **all_of_them))
        return memory(workshop, bandwidth=None, channels=None, kind=None)

    return change


def empty_channels(workshop: Workshop) -> Case:
    letters = "ABCDEFGH"
    slots = {(f"P1-DIMM{letter}1", ""): 64 if letter in "ABCD" else 0 for letter in letters}
    workshop.write(TABLE, board(slots, kind=DDR4, rated=3200, configured=3200))
    return memory(workshop, bandwidth=None, channels=None, kind=None)


def two_nodes(workshop: Workshop, plan: Plan | None = None, **kernel: str) -> Case:
    node = (workshop.root / "sys/devices/system/node/node0/meminfo").read_text()
    workshop.write("sys/devices/system/node/has_cpu", "0-1\n")
    workshop.write("sys/devices/system/node/node1/meminfo", node.replace("Node 0", "Node 1"))
    for path, text in kernel.items():
        workshop.write(path, text)
    case = cpu(workshop, numa_nodes=2)
    return case if plan is None else replace(case, plan=plan)


def on_the_host() -> Plan:
    """A plan that leaves the processor 4 GiB of weights."""
    return with_lines(host_weights(4 * GIB))


def with_threads(threads: int) -> Plan:
    plan = healthy.planned()
    return replace(plan, settings=replace(plan.settings, threads=threads))


def full_nodes(workshop: Workshop) -> Case:
    case = two_nodes(workshop)
    for number in (0, 1):
        workshop.write(
            f"sys/devices/system/node/node{number}/meminfo",
            f"Node {number} MemTotal:       1048576 kB\nNode {number} MemFree:           32768 kB\n"
            f"Node {number} FilePages:       16384 kB\nNode {number} Shmem:           1024 kB\n",
        )
    return case


def without_turbo(workshop: Workshop) -> Case:
    workshop.write(f"{CPUFREQ}/boost", "0\n")
    machine = replace(healthy.inventory(), gpus=())
    return workshop.case(inventory=machine, gpu_states=None, plan=None)


def stolen(workshop: Workshop) -> Case:
    text = (workshop.root / "proc/stat").read_text()
    workshop.write("proc/stat", text.replace("21044 0 10377 0 0 0", "21044 0 10377 401231 0 0", 1))
    return workshop.case()


def quota(workshop: Workshop) -> Case:
    workshop.write(f"{GROUP}/cpu.max", "150000 100000\n")
    workshop.write(f"{GROUP}/cpu.stat", (
        "usage_usec 91022131\nuser_usec 90120112\nsystem_usec 902019\n"
        "nr_periods 8120\nnr_throttled 3311\nthrottled_usec 120331120\n"
    ))  # fmt: skip
    return workshop.case()


def old_quota(workshop: Workshop) -> Case:
    workshop.write("proc/self/cgroup", "4:cpu,cpuacct:/docker/0123abcd\n0::/\n")
    workshop.write("sys/fs/cgroup/cpu,cpuacct/docker/0123abcd/cpu.stat",
                   "nr_periods 900\nnr_throttled 400\nthrottled_time 90120331120\n")  # fmt: skip
    return workshop.case()


def large_model(workshop: Workshop, filesystem: str, source: str, rotational: str = "0") -> Case:
    """A model of 20 GiB on a disk whose kind is told, and whose speed was never measured."""
    model = healthy.model()
    (file,) = model.spec.files
    spec = replace(model.spec, files=(replace(file, size_bytes=20 * GIB),))
    device = model.paths[0].stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mount = f"44 28 {number} / /models rw,relatime shared:3 - {filesystem} {source} rw\n"
    workshop.write("proc/self/mountinfo", mount)
    if filesystem == "ext4":
        workshop.write(f"sys/dev/block/{number}/queue/rotational", f"{rotational}\n")
    return workshop.case(model=replace(model, spec=spec))


SETUPS: tuple[Setup, ...] = (
    Setup(
        "pcie-x8", "a card that has 16 lanes sits on a riser with 8",
        "pcie-width-reduced", WARN,
        lambda workshop: workshop.with_gpu(link=Link(1, 8, 4, 16)),
    ),
    Setup(
        "pcie-old-slot", "a PCIe 4.0 card in a PCIe 3.0 slot",
        "pcie-generation-reduced", WARN,
        gpus(card(link=Link(1, 16, 3, 16))),
    ),
    Setup(
        "pcie-slow-under-load", "a card that works and stays at PCIe 1.0",
        "pcie-generation-reduced", WARN,
        lambda workshop: workshop.with_gpu(link=Link(1, 16, 4, 16), busy=0.98),
    ),
    Setup(
        "engine-for-processors", "the engine's build for processors on a machine with a GPU",
        "engine-without-gpu", WARN,
        lambda workshop: engine(workshop, build="cpu", gpus=0),
    ),
    Setup(
        "gpu-hidden", "CUDA_VISIBLE_DEVICES hides the second of two GPUs",
        "engine-sees-fewer-gpus", WARN,
        lambda workshop: replace(
            gpus(card(), card())(workshop), engine=healthy.engine(),
            host=workshop.host(environment={"CUDA_VISIBLE_DEVICES": "0"}),
            gpu_states=(state(), state(index=1)),
        ),
    ),
    Setup(
        "gpu-too-old", "a Tesla P40 and the engine's build for CUDA 13.2",
        "gpu-too-old", FAIL,
        gpus(P40, build="cu132", capabilities=((7, 5), (8, 0), (8, 6), (8, 9), (12, 0))),
    ),
    Setup(
        "gpu-driver-too-old", "a driver for CUDA 11.8 and the engine's build for CUDA 12.8",
        "gpu-driver-too-old", FAIL,
        lambda workshop: workshop.with_gpu(driver_cuda=(11, 8)),
    ),
    Setup(
        "gpu-without-tensor-cores", "a Tesla P40, which has no tensor cores",
        "flash-attention-slow", INFO,
        gpus(P40, capabilities=((5, 0), (6, 1), (7, 0), (7, 5), (8, 6))),
    ),
    Setup(
        "memory-one-module", "one module in a board with four slots",
        "single-channel-memory", WARN, modules((0, 32, 0, 0)),
    ),
    Setup(
        "memory-one-channel", "two modules in the two slots of one channel",
        "single-channel-memory", WARN, modules((32, 32, 0, 0)),
    ),
    Setup(
        "memory-half-the-channels", "a server with modules on four of eight channels",
        "memory-channels-empty", WARN, empty_channels,
    ),
    Setup(
        "memory-without-profile", "modules for 5600 MT/s that run at 3600",
        "memory-below-rated", WARN, modules((0, 32, 0, 32), rated=5600, configured=3600),
    ),
    Setup(
        "memory-slow", "memory that was measured at a quarter of what its channels give",
        "memory-bandwidth-low", WARN,
        lambda workshop: memory(workshop, bandwidth=Bandwidth(21e9, "measured")),
    ),
    Setup(
        "numa-balancing", "weights on two memory nodes and the kernel's page moving",
        "numa-balancing-on", WARN,
        lambda workshop: two_nodes(
            workshop, on_the_host(), **{"proc/sys/kernel/numa_balancing": "1\n"}
        ),
    ),
    Setup(
        "numa-zone-reclaim", "weights on two memory nodes and zone_reclaim_mode",
        "numa-zone-reclaim", WARN,
        lambda workshop: two_nodes(
            workshop, on_the_host(), **{"proc/sys/vm/zone_reclaim_mode": "1\n"}
        ),
    ),
    Setup(
        "numa-split", "a plan that no memory node can hold alone",
        "numa-split", INFO, full_nodes,
    ),
    Setup(
        "cpu-lowest-frequency", "acpi-cpufreq with the governor powersave",
        "cpu-powersave", WARN,
        files(policy(0, scaling_driver="acpi-cpufreq", scaling_governor="powersave")),
    ),
    Setup(
        "cpu-prefers-power", "amd-pstate-epp told to prefer power",
        "cpu-powersave", WARN, files(policy(1, energy_performance_preference="power")),
    ),
    Setup(
        "cpu-capped", "a frequency capped at half of what the processor can do",
        "cpu-frequency-capped", WARN, files(policy(1, scaling_max_freq="3000000")),
    ),
    Setup(
        "cpu-set-low", "the governor userspace, set to a quarter of what the processor can do",
        "cpu-frequency-capped", WARN,
        files(policy(1, scaling_driver="acpi-cpufreq", scaling_governor="userspace",
                     scaling_setspeed="1500000")),
    ),
    Setup(
        "cpu-without-turbo", "turbo switched off on a machine without a GPU",
        "cpu-turbo-off", WARN, without_turbo,
    ),
    Setup(
        "cpu-hot", "a processor at 99 of 100 °C",
        "cpu-hot", WARN,
        files(sensors(5, "coretemp", temp1_input=99000, temp1_max=80000, temp1_crit=100000)),
    ),
    Setup(
        "cpu-throttled-before", "a processor that was slowed for heat since the boot",
        "cpu-throttled-before", INFO,
        files({
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "12\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4711\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "4711\n",
        }),
    ),
    Setup(
        "cpu-quota", "a container whose quota stops it in 41 % of the periods",
        "cpu-quota-throttles", WARN, quota,
    ),
    Setup(
        "cpu-quota-v1", "the same with the older kind of control groups",
        "cpu-quota-throttles", WARN, old_quota,
    ),
    Setup(
        "cpu-too-many-threads", "a plan for 16 threads where 4 cores may be used",
        "too-many-threads", WARN, lambda workshop: cpu(workshop, usable_cores=4),
    ),
    Setup(
        "cpu-absurd-threads", "a plan for 100,000 threads",
        "too-many-threads", FAIL,
        lambda workshop: workshop.case(plan=with_threads(100_000)),
    ),
    Setup(
        "cpu-stolen", "a guest whose host runs others 15 % of the time",
        "cpu-stolen", WARN, stolen,
    ),
    Setup(
        "host-busy", "a load as high as there are cores",
        "host-busy", WARN, files({"proc/loadavg": "17.02 16.40 12.01 19/1422 30127\n"}),
    ),
    Setup(
        "gpu-hot", "a GPU at 88 °C that slows down at 90",
        "gpu-hot", WARN,
        lambda workshop: workshop.with_gpu(temperature_c=88.0, reasons=("thermal",)),
    ),
    Setup(
        "gpu-power-brake", "a power supply that asks the GPU to slow down",
        "gpu-throttled", WARN, lambda workshop: workshop.with_gpu(reasons=("power-brake",)),
    ),
    Setup(
        "gpu-power-limited", "a GPU limited to half of its power",
        "gpu-power-limited", WARN, lambda workshop: workshop.with_gpu(power_limit_watts=225.0),
    ),
    Setup(
        "gpu-memory-errors", "a GPU with two memory errors that could not be corrected",
        "gpu-memory-errors", FAIL, lambda workshop: workshop.with_gpu(uncorrected=2),
    ),
    Setup(
        "gpu-remap-pending", "a GPU that waits for a restart to replace rows of its memory",
        "gpu-remap-pending", WARN, lambda workshop: workshop.with_gpu(remap_pending=True),
    ),
    Setup(
        "disk-full", "150 MiB free under the home folder",
        "disk-nearly-full", FAIL, lambda workshop: disk(workshop, free_bytes=150 * MIB),
    ),
    Setup(
        "model-on-network", "a model of 20 GiB on NFS",
        "model-on-slow-disk", WARN,
        lambda workshop: large_model(workshop, "nfs4", "nas:/models"),
    ),
    Setup(
        "model-on-rotating-disk", "a model of 20 GiB on a rotating disk",
        "model-on-slow-disk", WARN,
        lambda workshop: large_model(workshop, "ext4", "/dev/sda1", "1"),
    ),
    Setup(
        "engine-needs-more", "an engine compiled for AVX-512 on a processor without it",
        "cpu-lacks-instructions", FAIL,
        lambda workshop: engine(workshop, instruction_sets=("AVX", "AVX2", "AVX-512")),
    ),
    Setup(
        "engine-below-cpu", "an engine compiled for AVX2 on a processor with AVX-512",
        "engine-below-cpu", INFO,
        lambda workshop: cpu(workshop, instruction_sets=(
            "SSE4.2", "AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX-512", "AVX-512-VNNI", "AMX-INT8",
        )),
    ),
    Setup(
        "engine-of-another-release", "an engine of another release than this moestro's",
        "engine-unusable", FAIL,
        lambda workshop: workshop.case(engine=EngineMismatch(
            "The installed engine, xllamacpp 2026.1.1, is another release.",
            hint="Install the engine that belongs to this version.",
        )),
    ),
)  # fmt: skip
