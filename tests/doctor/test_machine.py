"""The machine's checks: every set-up, and what must not be called broken."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moestro.doctor.case import Case
from moestro.doctor.check import Check
from moestro.doctor.checks import disk as disk_check
from moestro.doctor.checks import processes
from moestro.doctor.checks.cpu_stolen import stolen_share
from moestro.doctor.examine import examine
from moestro.doctor.host import Host, this_host
from moestro.doctor.virtual import is_virtual
from moestro.engine.llama_cpp.facts import ILLEGAL_INSTRUCTION
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.errors import EngineStartFailed
from moestro.findings import Finding, Severity
from moestro.hardware import Bandwidth, Disk, Gpu, Link, this_inventory
from moestro.hardware.gpu_state import read_gpu_states
from moestro.hardware.measure.reading import reading_rate
from moestro.hardware.smbios import parse_udev
from moestro.units import GIB, MIB
from tests.doctor import workshop as healthy
from tests.doctor.healthy_machine import CPUFREQ, policy, sensors
from tests.doctor.setups import Setup
from tests.doctor.setups_machine import (
    SETUPS,
    TABLE,
    card,
    cpu,
    engine,
    files,
    full_nodes,
    gpus,
    large_model,
    memory,
    modules,
    on_the_host,
    quota,
    state,
    two_nodes,
    with_threads,
    without_turbo,
)
from tests.doctor.workshop import Workshop
from tests.hardware.smbios_writer import DDR4, LPDDR5, board
from tests.hardware.test_gpu_state import FakeNvml

NAMES = (
    "pcie_link", "gpu_support", "memory_channels", "numa", "cpu_governor", "cpu_throttle",
    "cpu_quota", "cpu_stolen", "host_load", "gpu_throttle", "gpu_errors", "disk", "engine_build",
)  # fmt: skip
CHECKS: tuple[Check, ...] = tuple(
    import_module(f"moestro.doctor.checks.{name}").CHECK for name in NAMES
)
TROUBLE = (Severity.WARN, Severity.FAIL, Severity.UNKNOWN)


def findings(case: Case) -> list[Finding]:
    return [finding for answer in examine(case, CHECKS) for finding in answer.findings]


def codes(case: Case, *severities: Severity) -> list[str]:
    wanted = severities or (Severity.INFO, *TROUBLE)
    return [finding.code for finding in findings(case) if finding.severity in wanted]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_what_is_broken_is_found_and_nothing_else(setup: Setup, workshop: Workshop) -> None:
    case = setup.change(workshop)
    named = [finding for finding in findings(case) if finding.code == setup.code]
    assert [finding.severity for finding in named] == [setup.severity], findings(case)
    assert named[0].evidence
    assert named[0].fix
    assert [code for code in codes(case, *TROUBLE) if code != setup.code] == []


def test_a_healthy_machine(workshop: Workshop) -> None:
    found = findings(workshop.case())
    assert {finding.severity for finding in found} == {Severity.OK}, found
    assert len(found) >= 10


def test_names_are_those_of_the_files() -> None:
    assert [check.name for check in CHECKS] == [name.replace("_", "-") for name in NAMES]


@pytest.mark.parametrize("gpu_states", [None, (healthy.gpu_state(),)])
def test_an_empty_root_is_no_fault(tmp_path: Path, gpu_states: Any) -> None:
    case = Case(
        Host(root=tmp_path), healthy.inventory(), healthy.engine(), gpu_states, healthy.model(),
        plan=healthy.planned(),
    )  # fmt: skip
    assert codes(case, Severity.WARN, Severity.FAIL) == []


def test_nothing_was_asked(tmp_path: Path) -> None:
    assert codes(Case(Host(root=tmp_path), healthy.inventory()), Severity.WARN, Severity.FAIL) == []


def test_this_very_machine_trips_up_no_check() -> None:
    found = findings(Case(this_host(), this_inventory(gpus=False), healthy.engine()))
    assert [finding.code for finding in found if finding.code.endswith("-unreadable")] == []


@pytest.mark.parametrize("text", [b"", b"\0\xff\xfe" * 300, b"9" * 5000, b"-1\n", b"a b c\n" * 50])
def test_files_of_noise_are_no_fault(text: bytes, workshop: Workshop) -> None:
    for path in workshop.root.rglob("*"):
        if path.is_file():
            path.write_bytes(text)
    workshop.write(TABLE, text)
    found = codes(workshop.case(), Severity.WARN, Severity.FAIL)
    assert [code for code in found if code != "cpu-turbo-off"] == []
    assert not any(code.endswith("-unreadable") for code in codes(workshop.case()))


# PCI Express


def test_an_idle_card_is_no_slow_card(workshop: Workshop) -> None:
    assert codes(workshop.with_gpu(link=Link(1, 16, 4, 16), busy=0.0)) == []


def test_a_good_slot_that_is_older_than_the_card_is_worth_knowing(workshop: Workshop) -> None:
    case = gpus(card(link=Link(1, 16, 4, 16)), state=state(link=Link(1, 16, 5, 16)))(workshop)
    assert codes(case) == ["pcie-generation-reduced"]
    assert codes(case, *TROUBLE) == []


def test_what_a_narrow_slot_costs_depends_on_the_plan(workshop: Workshop) -> None:
    case = workshop.with_gpu(link=Link(1, 8, 4, 16))
    assert case.plan is not None
    spread = replace(case.plan, settings=replace(case.plan.settings, cpu_expert_layers=3))
    for plan, words in (
        (case.plan, "all experts on the GPU"),
        (spread, "experts of 3 layers in host memory"),
        (None, "where experts stay"),
    ):
        (found,) = (f for f in findings(replace(case, plan=plan)) if f.code == "pcie-width-reduced")
        assert found.evidence is not None
        assert "PCIe 4.0 x8, 15.8 GB/s" in found.evidence
        assert words in found.evidence


def test_a_guest_does_not_see_the_real_link(workshop: Workshop) -> None:
    guest(workshop)
    case = workshop.with_gpu(link=Link(1, 1, 4, 16))
    assert codes(case) == ["pcie-link-unknown"]


def test_without_the_kernels_files_the_cards_own_best_is_unknown(workshop: Workshop) -> None:
    assert codes(workshop.with_gpu(link=None)) == ["pcie-link-unknown"]
    nothing = gpus(card(link=None), state=state(link=None))(workshop)
    assert codes(nothing) == ["pcie-link-unknown"]


def test_memory_that_is_shared_hangs_on_no_slot(workshop: Workshop) -> None:
    spark = Gpu("nvidia", "NVIDIA GB10", capability=(12, 1), shared=True)
    assert codes(gpus(spark, state=state(link=None, slowdown_c=None))(workshop)) == []


def test_several_cards_are_told_apart(workshop: Workshop) -> None:
    narrow = state(index=1, link=Link(1, 4, 4, 16))
    case = replace(gpus(card(), card())(workshop), gpu_states=(state(), narrow))
    (found,) = (f for f in findings(case) if f.severity in TROUBLE)
    assert found.title == "GPU 1 (NVIDIA GeForce RTX 4090) runs on 4 of its 16 lanes"


@pytest.mark.parametrize(("chassis", "severity"), [(3, Severity.WARN), (10, Severity.INFO)])
def test_a_notebooks_lanes_are_soldered(
    chassis: int, severity: Severity, workshop: Workshop
) -> None:
    workshop.write("sys/class/dmi/id/chassis_type", f"{chassis}\n")
    case = workshop.with_gpu(link=Link(1, 8, 4, 16))
    (found,) = (f for f in findings(case) if f.code == "pcie-width-reduced")
    assert found.severity is severity
    assert ("Put the card" in (found.fix or "")) == (chassis == 3)


# GPUs and the engine


def test_a_driver_that_is_new_enough(workshop: Workshop) -> None:
    assert codes(workshop.with_gpu(driver_cuda=(12, 2))) == []


def test_the_oldest_card_that_a_build_has_code_for(workshop: Workshop) -> None:
    turing = card(name="Tesla T4", capability=(7, 5))
    assert codes(gpus(turing, build="cu132", capabilities=((7, 5), (8, 6)))(workshop)) == []


def test_an_old_card_that_the_engine_does_not_see_is_slow_not_broken(workshop: Workshop) -> None:
    case = gpus(card(capability=(3, 5)), capabilities=((5, 0), (6, 1)))(workshop)
    unseen = replace(case, engine=replace(healthy.engine(), gpus=0, capabilities=((5, 0),)))
    assert codes(unseen, Severity.FAIL) == []
    assert codes(unseen, Severity.WARN) == ["gpu-too-old", "engine-without-gpu"]


def test_a_gpu_that_is_hidden_is_said_to_be(workshop: Workshop) -> None:
    case = replace(
        engine(workshop, gpus=0), host=workshop.host(environment={"CUDA_VISIBLE_DEVICES": ""})
    )
    (found,) = (f for f in findings(case) if f.severity in TROUBLE)
    assert found.evidence is not None
    assert "CUDA_VISIBLE_DEVICES=" in found.evidence
    assert found.fix == "Unset what hides the GPUs."


def test_an_engine_that_dies_of_an_instruction(workshop: Workshop) -> None:
    died = EngineStartFailed("It was.", hint="Compile it.", code=ILLEGAL_INSTRUCTION)
    assert codes(workshop.case(engine=died)) == ["cpu-lacks-instructions"]


BEYOND_AVX2 = ("AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX-VNNI")


@pytest.mark.parametrize(
    ("build", "command"),
    [
        ("cpu", "moestro engines build llama.cpp"),
        ("cu128", "moestro engines build llama.cpp --cuda"),
        (None, "moestro engines build llama.cpp"),
    ],
)
def test_a_native_build_keeps_its_gpu(workshop: Workshop, build: str | None, command: str) -> None:
    case = cpu(workshop, instruction_sets=BEYOND_AVX2)
    case = replace(case, engine=replace(healthy.engine(), build=build))
    (found,) = (f for f in findings(case) if f.code == "engine-below-cpu")
    assert found.fix is not None
    # The command stands alone at the end, so that it can be copied.
    assert found.fix.rpartition(": ")[2] == command


def test_a_build_for_other_gpus_is_the_packages_own(workshop: Workshop) -> None:
    case = cpu(workshop, instruction_sets=BEYOND_AVX2)
    case = replace(case, engine=replace(healthy.engine(), build="rocm-6.4"))
    (found,) = (f for f in findings(case) if f.code == "engine-below-cpu")
    command = (found.fix or "").rpartition(": ")[2]
    assert command.startswith("XLLAMACPP_BUILD_HIP=1 pip install --force-reinstall --no-deps")
    assert command.endswith(f"xllamacpp=={EXPECTED_VERSION}")


def test_metal_computes_elsewhere(workshop: Workshop) -> None:
    case = cpu(workshop, instruction_sets=BEYOND_AVX2)
    assert codes(replace(case, engine=replace(healthy.engine(), build="metal"))) == []


def test_amx_alone_is_no_reason_for_a_build(workshop: Workshop) -> None:
    sets = ("AVX", "F16C", "FMA", "AVX2", "BMI2", "AMX-INT8")
    assert codes(cpu(workshop, instruction_sets=sets)) == []


def seen(
    workshop: Workshop, build: str, gpus_seen: int, *found: Gpu, **of_states: Any
) -> list[Finding]:
    states = tuple(
        state(index=n, vendor=gpu.vendor, name=gpu.name, **of_states) for n, gpu in enumerate(found)
    )
    case = replace(
        gpus(*found)(workshop), gpu_states=states,
        engine=replace(healthy.engine(), build=build, gpus=gpus_seen),
    )  # fmt: skip
    return [f for f in findings(case) if f.code.startswith(("engine-", "gpu-", "flash"))]


RADEON = Gpu("amd", "AMD Radeon RX 7900 XTX", 24 * GIB, target="gfx1100", link=healthy.GPU_LINK)


@pytest.mark.parametrize(
    ("build", "found", "fix"),
    [
        ("cu128", (card(), card()), "nvidia-smi lists them"),
        ("rocm-7.2.4", (RADEON, RADEON), "groups render and video"),
        ("vulkan", (card(), RADEON), "rocminfo"),
    ],
)
@pytest.mark.parametrize(("gpus_seen", "code"), [(0, "engine-without-gpu"), (1, "engine-sees-")])
def test_the_right_build_is_not_installed_again(
    gpus_seen: int, code: str, build: str, found: tuple[Gpu, ...], fix: str, workshop: Workshop
) -> None:
    (told,) = (f for f in seen(workshop, build, gpus_seen, *found) if f.code.startswith(code))
    assert told.severity is Severity.WARN
    assert fix in (told.fix or "")
    assert "make" not in (told.fix or "")


@pytest.mark.parametrize(("build", "found"), [("cpu", card()), ("cu128", RADEON)])
def test_the_wrong_build_is_told_how_to_change_it(
    build: str, found: Gpu, workshop: Workshop
) -> None:
    (told,) = (f for f in seen(workshop, build, 0, found) if f.code == "engine-without-gpu")
    assert "make clean up" in (told.fix or "")
    # Who installed with pip has no Makefile.
    assert "python -m moestro.engine.llama_cpp.builds --json" in (told.fix or "")
    assert "pip install --force-reinstall" in (told.fix or "")


def test_a_build_leaves_the_cards_of_another_vendor_alone(workshop: Workshop) -> None:
    told = [f for f in seen(workshop, "cu128", 1, card(), RADEON) if f.severity is not Severity.OK]
    assert [(f.code, f.severity) for f in told] == [("gpu-of-another-vendor", Severity.INFO)]
    assert "Radeon" in told[0].title
    assert "4090" not in told[0].title


def test_a_divided_card_is_no_missing_card(workshop: Workshop) -> None:
    h100 = card(name="NVIDIA H100 80GB HBM3", capability=(9, 0))
    two = (h100, h100)
    told = [
        f for f in seen(workshop, "cu128", 1, *two, divided=True) if f.severity is not Severity.OK
    ]
    assert [(f.code, f.severity) for f in told] == [("engine-sees-a-slice", Severity.INFO)]
    (none,) = (f for f in seen(workshop, "cu128", 0, *two, divided=True)
               if f.code == "engine-without-gpu")  # fmt: skip
    assert "nvidia-smi -L" in (none.fix or "")
    assert "make" not in (none.fix or "")


def test_a_processor_that_tells_nothing_lacks_nothing(workshop: Workshop) -> None:
    assert codes(cpu(workshop, instruction_sets=())) == []


# Memory


def guest(workshop: Workshop) -> None:
    text = (workshop.root / "proc/cpuinfo").read_text()
    workshop.write("proc/cpuinfo", text.replace(" svm ", " svm hypervisor "))


def test_a_hypervisors_modules_prove_nothing(workshop: Workshop) -> None:
    guest(workshop)
    workshop.write(TABLE, board({("DIMM 0", ""): 64, ("DIMM 1", ""): 0}))
    assert codes(memory(workshop, bandwidth=None, channels=None, kind=None)) == []


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ((0, 32, 0, 32), {}),
        ((32, 32, 32, 32), {"rated": 4800, "configured": 6000}),
        ((0, 32, 0, 32), {"configured": 5500}),
        # Soldered: one entry may hold several channels.
        ((32, 0, 0, 0), {"kind": LPDDR5}),
    ],
)
def test_modules_that_are_well(
    sizes: tuple[int, ...], settings: dict[str, int], workshop: Workshop
) -> None:
    case = modules(sizes, **settings)(workshop)
    assert codes(case, Severity.WARN, Severity.INFO) == []


def test_slots_that_are_numbered_tell_no_channel(workshop: Workshop) -> None:
    workshop.write(
        TABLE, board({(f"PROC 1 DIMM {n}", ""): 32 * (n % 2) for n in range(8)}, kind=DDR4)
    )
    case = memory(workshop, bandwidth=None, channels=None, kind=None)
    assert codes(case) == ["memory-channels-unknown"]


@pytest.mark.parametrize(
    ("gigabytes", "trouble"),
    [(60, []), (30, ["memory-channels-unknown"]), (None, ["memory-channels-unknown"])],
)
def test_a_measured_bandwidth_answers_where_it_can(
    gigabytes: int | None, trouble: list[str], workshop: Workshop
) -> None:
    rate = None if gigabytes is None else Bandwidth(gigabytes * 1e9, "measured")
    assert codes(memory(workshop, bandwidth=rate, channels=None, kind=None)) == trouble


def test_who_may_not_read_the_table_is_told_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rights do not keep the superuser out, who may be the one that runs this.
    monkeypatch.setattr(Host, "refused", lambda _, path: path == TABLE)
    case = memory(workshop, bandwidth=None, channels=None, kind=None)
    (found,) = (f for f in findings(case) if f.severity in TROUBLE)
    assert found.fix is not None
    assert found.fix.startswith("The table of the modules is for root: sudo ")
    assert " doctor" in found.fix


UDEV = """\
I:2103418
E:MEMORY_ARRAY_LOCATION=System Board Or Motherboard
E:MEMORY_ARRAY_NUM_DEVICES=2
E:MEMORY_DEVICE_0_SIZE=17179869184
E:MEMORY_DEVICE_0_LOCATOR=DIMM 0
E:MEMORY_DEVICE_0_BANK_LOCATOR=P0 CHANNEL A
E:MEMORY_DEVICE_0_TYPE=DDR4
E:MEMORY_DEVICE_0_SPEED_MTS=3200
E:MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS=3200
E:MEMORY_DEVICE_1_SIZE=17179869184
E:MEMORY_DEVICE_1_LOCATOR=DIMM 0
E:MEMORY_DEVICE_1_BANK_LOCATOR=P0 CHANNEL B
E:MEMORY_DEVICE_1_TYPE=DDR4
E:MEMORY_DEVICE_1_SPEED_MTS=3200
E:MEMORY_DEVICE_1_CONFIGURED_SPEED_MTS=3200
V:1
"""


@pytest.mark.parametrize(
    ("gigabytes", "trouble"), [(38, []), (None, []), (20, ["memory-bandwidth-low"])]
)
def test_what_udev_keeps_for_everybody(
    gigabytes: int | None, trouble: list[str], workshop: Workshop
) -> None:
    """Two channels of DDR4-3200 give 51.2 GB/s, as one of DDR5 may: the figure alone tells
    nothing."""
    workshop.write("run/udev/data/+dmi:id", UDEV)
    rate = None if gigabytes is None else Bandwidth(gigabytes * 1e9, "measured")
    assert codes(memory(workshop, bandwidth=rate, channels=None, kind=None)) == trouble
    empty = UDEV.replace("1_SIZE=17179869184", "1_PRESENT=0")
    workshop.write("run/udev/data/+dmi:id", empty)
    assert "single-channel-memory" in codes(
        memory(workshop, bandwidth=rate, channels=None, kind=None)
    )


def test_udevs_copy_in_the_kinds_that_it_has() -> None:
    strange = UDEV.replace("DDR4", "<OUT OF SPEC>").replace("P0 CHANNEL A", "Not Specified")
    flash = "E:MEMORY_DEVICE_2_SIZE=8388608\nE:MEMORY_DEVICE_2_TYPE=Flash\n"
    slots = parse_udev(strange + flash).slots
    assert [(slot.kind, slot.bank) for slot in slots] == [(None, ""), (None, "P0 CHANNEL B")]
    assert parse_udev("E:MEMORY_DEVICE_0_SIZE=" + "9" * 40).slots[0].size_bytes is None
    assert parse_udev("").slots == ()


def test_more_than_one_channel_of_a_known_kind_gives(workshop: Workshop) -> None:
    rate = Bandwidth(30e9, "measured")
    case = memory(workshop, bandwidth=rate, channels=None, kind="DDR4-3200")
    assert codes(case) == []
    slower = replace(rate, bytes_per_second=24e9)
    case = memory(workshop, bandwidth=slower, channels=None, kind="DDR4-3200")
    assert codes(case) == ["memory-channels-unknown"]


def test_a_share_of_the_cores_does_not_fill_the_channels(workshop: Workshop) -> None:
    machine = healthy.inventory()
    case = workshop.case(plan=None, inventory=replace(
        machine, cpu=replace(machine.cpu, usable_cores=2),
        memory=replace(machine.memory, bandwidth=Bandwidth(21e9, "measured")),
    ))  # fmt: skip
    assert codes(case) == ["memory-channels-unknown"]


# The processor


def test_settings_of_the_kernel_do_not_matter_with_one_node(workshop: Workshop) -> None:
    workshop.write("proc/sys/kernel/numa_balancing", "1\n")
    workshop.write("proc/sys/vm/zone_reclaim_mode", "1\n")
    assert codes(workshop.case()) == []


def test_two_nodes_that_are_well(workshop: Workshop) -> None:
    assert codes(two_nodes(workshop)) == []


MOVES = {"proc/sys/kernel/numa_balancing": "1\n", "proc/sys/vm/zone_reclaim_mode": "1\n"}


def test_the_kernels_default_is_no_matter_to_a_model_on_the_gpu(workshop: Workshop) -> None:
    case = two_nodes(workshop, **MOVES)
    assert codes(case) == []
    (told,) = (f for f in findings(case) if f.code == "numa")
    assert "numa_balancing is 1" in (told.evidence or "")
    nobody_knows = replace(case, plan=None)
    assert codes(nobody_knows, Severity.INFO) == ["numa-balancing-on", "numa-zone-reclaim"]
    assert codes(nobody_knows, *TROUBLE) == []


def test_a_small_part_of_a_large_model_is_no_matter_either(workshop: Workshop) -> None:
    plan = on_the_host()
    assert codes(two_nodes(workshop, plan, **MOVES), Severity.WARN)
    first, *others = plan.model.tensors
    tensors = (replace(first, size_bytes=60 * GIB), *others)
    large = replace(plan, model=replace(plan.model, tensors=tensors))
    assert large.model.tensor_bytes > 60 * GIB
    assert codes(two_nodes(workshop, large, **MOVES)) == []


def test_memory_of_cards_is_no_room(workshop: Workshop) -> None:
    """A node without processors: a GPU's memory, or an expander's."""
    case = full_nodes(workshop)
    node = (workshop.root / "sys/devices/system/node/node0/meminfo").read_text()
    large = node.replace("Node 0", "Node 2").replace("32768 kB", "94371840 kB")
    workshop.write("sys/devices/system/node/node2/meminfo", large)
    workshop.write("sys/devices/system/node/node0/cpulist", "0-15\n")
    workshop.write("sys/devices/system/node/node2/cpulist", "\n")
    assert codes(case) == ["numa-split"]
    workshop.write("sys/devices/system/node/node2/cpulist", "16-31\n")
    assert codes(case) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling_driver": "acpi-cpufreq", "scaling_governor": "conservative"},
        {"energy_performance_preference": "balance_power"},
        {"scaling_governor": "userspace", "scaling_setspeed": "<unsupported>"},
    ],
)
def test_a_processor_that_hesitates(changes: dict[str, str], workshop: Workshop) -> None:
    case = files(policy(0, **changes))(workshop)
    assert codes(case) == ["cpu-hesitates"]
    assert codes(case, *TROUBLE) == []


def test_a_speed_that_a_program_set_high(workshop: Workshop) -> None:
    own = {"scaling_governor": "userspace", "scaling_setspeed": "5881000"}
    assert codes(files(policy(0, **own))(workshop)) == []


def test_powersave_is_the_ordinary_governor_of_active_drivers(workshop: Workshop) -> None:
    assert codes(files(policy(0, scaling_driver="intel_pstate"))(workshop)) == []


def test_a_turbo_that_is_off_matters_less_where_gpus_compute(workshop: Workshop) -> None:
    without_turbo(workshop)
    workshop.write(f"{CPUFREQ}/policy0/base_frequency", "4500000\n")
    assert codes(workshop.case()) == ["cpu-turbo-off"]
    assert codes(workshop.case(), *TROUBLE) == []
    (told,) = (f for f in findings(workshop.case()) if f.code == "cpu-turbo-off")
    assert (told.evidence or "").startswith("boost is 0: it never runs above its base frequency of")
    assert "4.50 GHz" in (told.evidence or "")


def test_intels_turbo_is_named_once(workshop: Workshop) -> None:
    workshop.remove(f"{CPUFREQ}/boost")
    workshop.write("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n")
    case = files(policy(0, scaling_driver="intel_pstate", scaling_max_freq="4500000"))(workshop)
    assert codes(case) == ["cpu-turbo-off"]


@pytest.mark.parametrize(
    "sensor",
    [
        {"temp1_input": 94_000, "temp1_crit": 100_000},
        {"temp1_input": 88_000},  # nothing tells its limit
        {"temp1_input": 250_000, "temp1_crit": 100_000},
        {"temp1_input": -40_000, "temp1_crit": 100_000},
    ],
)
def test_sensors_that_tell_of_no_trouble(sensor: dict[str, int], workshop: Workshop) -> None:
    assert codes(files(sensors(4, "coretemp", **sensor))(workshop)) == []


def test_other_chips_are_not_the_processor(workshop: Workshop) -> None:
    hot = sensors(6, "nvme", temp1_input=84_000, temp1_crit=84_850)
    assert codes(files(hot)(workshop)) == []


def test_a_board_with_a_zone_of_its_own(workshop: Workshop) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    case = files({
        f"{zone}/type": "cpu-thermal\n", f"{zone}/temp": "108000\n",
        f"{zone}/trip_point_0_type": "passive\n", f"{zone}/trip_point_0_temp": "85000\n",
        f"{zone}/trip_point_1_type": "critical\n", f"{zone}/trip_point_1_temp": "110000\n",
    })(workshop)  # fmt: skip
    assert codes(case) == ["cpu-hot"]


def test_the_start_of_a_container_is_no_habit(workshop: Workshop) -> None:
    workshop.write("sys/fs/cgroup/user.slice/cpu.stat", "nr_periods 9\nnr_throttled 8\n")
    assert codes(workshop.case()) == []


@pytest.mark.parametrize(
    ("load", "severities"),
    [
        ("9.10 8.80 4.00", [Severity.INFO]),
        ("19.10 0.80 0.10", []),  # it only begins
        ("0.10 18.00 20.00", []),  # it is over
        ("nan nan nan", []),
        ("inf inf inf", []),
    ],
)
def test_loads(load: str, severities: list[Severity], workshop: Workshop) -> None:
    case = files({"proc/loadavg": f"{load} 1/100 1000\n"})(workshop)
    assert [f.severity for f in findings(case) if f.code == "host-busy"] == severities


@pytest.mark.parametrize(("load", "threads"), [("10.50", 5), ("17.00", 8), ("90.00", 8)])
def test_what_is_left_of_a_busy_processor(load: str, threads: int, workshop: Workshop) -> None:
    case = files({"proc/loadavg": f"{load} {load} {load} 1/100 1000\n"})(workshop)
    (told,) = (f for f in findings(case) if f.code == "host-busy")
    assert (told.fix or "").endswith(f"moestro up MODEL --threads {threads}")


def test_fewer_threads_than_the_quota_has(workshop: Workshop) -> None:
    (told,) = (f for f in findings(quota(workshop)) if f.code == "cpu-quota-throttles")
    assert (told.fix or "").endswith("moestro up MODEL --threads 15")


def test_an_absurd_plan_is_refused_once(workshop: Workshop) -> None:
    case = workshop.case(plan=with_threads(100_000))
    assert codes(case, Severity.FAIL) == ["too-many-threads"]
    assert list(processes.CHECK.run(case)) == []
    most = workshop.case(plan=with_threads(512))
    assert codes(most) == ["too-many-threads"]
    assert codes(most, Severity.FAIL) == []
    assert list(processes.CHECK.run(most))


@pytest.mark.parametrize(
    ("cpuinfo", "vendor", "virtual"),
    [
        ("flags\t\t: fpu sse hypervisor lahf_lm\n", "", True),
        ("flags\t\t: fpu sse lahf_lm\n", "Amazon EC2", False),  # bare metal
        ("Features\t: fp asimd\n", "QEMU", True),
        ("Features\t: fp asimd\n", "Raspberry Pi Foundation", False),
        ("", "", False),
    ],
)
def test_guests(cpuinfo: str, vendor: str, virtual: bool, workshop: Workshop) -> None:
    workshop.write("proc/cpuinfo", cpuinfo)
    workshop.write("sys/class/dmi/id/sys_vendor", vendor)
    assert is_virtual(workshop.host()) is virtual


def test_the_share_of_stolen_time(workshop: Workshop) -> None:
    workshop.write("proc/stat", "cpu  5000 1000 2000 90000 500 100 900 1000 0 0\n")
    assert stolen_share(workshop.host()) == pytest.approx(0.1)
    workshop.write("proc/stat", "cpu  500 100 200 90000 500 10 90 100 0 0\n")
    assert stolen_share(workshop.host()) is None  # too short to tell


# GPUs now


@pytest.mark.parametrize(
    ("heat", "reasons", "trouble"),
    [
        (86.0, (), ["gpu-hot"]),
        (84.0, (), []),
        (None, ("thermal",), ["gpu-hot"]),
        (70.0, ("thermal",), ["gpu-hot"]),
    ],
)
def test_heat(
    heat: float | None, reasons: tuple[str, ...], trouble: list[str], workshop: Workshop
) -> None:
    assert codes(workshop.with_gpu(temperature_c=heat, reasons=reasons)) == trouble


def test_a_card_at_its_power_limit_is_as_it_is_meant_to_be(workshop: Workshop) -> None:
    assert codes(workshop.with_gpu(reasons=("power",), busy=1.0, power_watts=449.0)) == []


def test_a_power_limit_that_someone_chose_is_worth_knowing(workshop: Workshop) -> None:
    case = workshop.with_gpu(power_limit_watts=350.0)
    assert codes(case) == ["gpu-power-limited"]
    assert codes(case, *TROUBLE) == []
    (told,) = (f for f in findings(case) if f.code == "gpu-power-limited")
    assert (told.fix or "").endswith("sudo nvidia-smi -i 0000:01:00.0 -pl 450")


def test_a_radeon_takes_its_limit_back_where_it_is(workshop: Workshop) -> None:
    slot = "0000:05:00.0"
    capped = state(vendor="amd", name=RADEON.name, bus_id=slot, power_limit_watts=300.0)
    case = gpus(RADEON, state=capped, build="rocm-7.2.4")(workshop)
    (told,) = (f for f in findings(case) if f.code == "gpu-power-limited")
    folder = f"/sys/bus/pci/devices/{slot}/hwmon/hwmon*"
    command = f"cat {folder}/power1_cap_default | sudo tee {folder}/power1_cap"
    assert (told.fix or "").endswith(command)


def test_only_the_card_that_is_meant_is_reset(workshop: Workshop) -> None:
    (told,) = (f for f in findings(workshop.with_gpu(remap_pending=True))
               if f.code == "gpu-remap-pending")  # fmt: skip
    assert (told.fix or "").endswith("sudo nvidia-smi -i 0000:01:00.0 -r")


def test_sound_memory_says_what_was_counted(workshop: Workshop) -> None:
    (told,) = (f for f in findings(workshop.case()) if f.code == "gpu-errors")
    assert (told.evidence or "").startswith("0 errors")


def test_no_driver_tells_of_the_gpus(workshop: Workshop) -> None:
    found = codes(workshop.case(gpu_states=None))
    assert set(found) == {"pcie-link-unknown", "gpu-throttle-unknown"}


def test_cards_without_error_correction_are_not_asked_for_errors(workshop: Workshop) -> None:
    case = workshop.with_gpu(uncorrected=None, remap_pending=None)
    assert [f.code for f in findings(case) if "error" in f.code] == []


# Disks


def home_on(workshop: Workshop, *mounts: str) -> None:
    """What is mounted where; `5:1` is the file system of the home folder."""
    workshop.write("proc/self/mountinfo", "".join(
        f"{30 + number} 28 {mount}\n" for number, mount in enumerate(mounts)
    ))  # fmt: skip


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOESTRO_DATA", "MOESTRO_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", "/home/ada/.cache/huggingface/hub")
    monkeypatch.setenv("HOME", "/home/ada")


ROOT = "259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw"
HOME = "5:1 / /home rw,relatime shared:3 - ext4 /dev/sda1 rw"


def disks(workshop: Workshop, *found: tuple[str, int]) -> Case:
    return workshop.case(inventory=replace(
        healthy.inventory(), disks=tuple(Disk("d", mount, None, mib * MIB) for mount, mib in found)
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("here", "severities"),
    [
        ("0:77 / /mnt/here rw,relatime - tmpfs tmpfs rw", [Severity.INFO]),
        ("0:77 / /mnt/here ro,relatime - tmpfs tmpfs rw", []),
        ("7:1 / /mnt/here rw,nosuid - squashfs /dev/loop1 ro,errors=continue", []),
    ],
)
def test_a_small_folder_that_one_stands_in(
    here: str, severities: list[Severity], workshop: Workshop, ada: None
) -> None:
    home_on(workshop, ROOT, HOME, here)
    case = disks(workshop, ("/home", 90_000), ("/mnt/here", 0))
    assert [f.severity for f in findings(case) if f.code == "disk-nearly-full"] == severities


@pytest.mark.parametrize("variable", ["MOESTRO_DATA", "MOESTRO_CACHE", "HF_HUB_CACHE"])
def test_what_is_written_to_must_have_room(
    variable: str, workshop: Workshop, ada: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_on(workshop, ROOT, HOME, r"0:77 / /mnt/my\040disk rw - tmpfs tmpfs rw")
    monkeypatch.setenv(variable, "/mnt/my disk/moestro")
    case = disks(workshop, ("/home", 90_000), ("/mnt/my disk", 150))
    (told,) = (f for f in findings(case) if f.code == "disk-nearly-full")
    assert told.severity is Severity.FAIL
    assert "/mnt/my disk/moestro" in (told.evidence or "")


def test_one_file_system_that_is_mounted_twice(workshop: Workshop, ada: None) -> None:
    home_on(workshop, ROOT, "259:2 /home /home rw,relatime - ext4 /dev/nvme0n1p2 rw")
    (told,) = (f for f in findings(disks(workshop, ("/", 150))) if f.code == "disk-nearly-full")
    assert told.severity is Severity.FAIL
    assert "/home/ada" in (told.evidence or "")


def test_without_mounts_the_first_disk_is_the_homes(workshop: Workshop, ada: None) -> None:
    workshop.remove("proc/self/mountinfo")
    for order, severity in ((("/home", "/mnt"), Severity.FAIL), (("/mnt", "/home"), Severity.INFO)):
        case = disks(workshop, *((mount, 150 if mount == "/home" else 90_000) for mount in order))
        told = [f.severity for f in findings(case) if f.code == "disk-nearly-full"]
        assert told == [severity]


def test_a_large_model_on_a_fast_disk(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    case = large_model(workshop, "ext4", "/dev/nvme0n1p2")
    monkeypatch.setattr(disk_check, "reading_rate", lambda _: 3.2e9)
    (found,) = (f for f in findings(case) if f.code.startswith("disk-speed"))
    assert found.severity is Severity.OK
    assert found.evidence is not None
    assert found.evidence.endswith("3.20 GB/s: 7 s to read it once")


def test_a_fast_network_is_fast_enough(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    case = large_model(workshop, "nfs4", "nas:/models")
    monkeypatch.setattr(disk_check, "reading_rate", lambda _: 2.2e9)
    assert codes(case) == []


def test_a_disk_of_no_known_kind_and_speed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = large_model(workshop, "overlay", "overlay")
    monkeypatch.setattr(disk_check, "reading_rate", lambda _: None)
    assert codes(case) == ["disk-speed-unknown"]


def test_what_was_measured_before_is_not_measured_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = large_model(workshop, "ext4", "/dev/nvme0n1p2")
    here = disk_check.disk_of(
        healthy.model().paths[0], sys=workshop.root / "sys",
        mounts=workshop.root / "proc/self/mountinfo",
    )  # fmt: skip
    assert here is not None
    known = replace(here, sequential=Bandwidth(120e6, "measured"), free_bytes=GIB * 100)
    monkeypatch.setattr(disk_check, "reading_rate", lambda _: pytest.fail("measured again"))
    case = replace(case, inventory=replace(case.inventory, disks=(known,)))
    assert codes(case) == ["model-on-slow-disk"]


def test_a_small_model_may_lie_anywhere(workshop: Workshop) -> None:
    case = large_model(workshop, "nfs4", "nas:/models")
    assert codes(replace(case, model=healthy.model())) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads past the file cache")
def test_the_rate_of_a_file_that_is_there(tmp_path: Path) -> None:
    real, sparse = tmp_path / "real", tmp_path / "sparse"
    real.write_bytes(os.urandom(MIB) * 80)
    with sparse.open("wb") as file:
        file.truncate(GIB)
    rate = reading_rate(real)
    assert rate is None or rate > 0  # a temporary folder in memory knows no such reads
    assert reading_rate(sparse) is None
    assert reading_rate(tmp_path / "absent") is None


def test_the_healthy_files_give_the_healthy_link(workshop: Workshop) -> None:
    states = read_gpu_states(healthy.inventory(), root=workshop.root, nvml=FakeNvml())
    assert states is not None
    assert states[0].link == Link(1, 16, 4, 16).with_peak()
    assert codes(workshop.with_gpu(link=states[0].link)) == []
