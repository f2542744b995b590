"""Plan files: read back as they were written, and never believed unseen."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.errors import NotAPlan
from moestro.findings import Severity
from moestro.hardware import hardware_named
from moestro.model import ModelSpec, read_model
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.plan import replay
from moestro.planning.plan_file import PlanFile
from moestro.planning.settings import PlannedEngine
from moestro.units import MIB
from tests.doctor.workshop import spec
from tests.tiny_models import write_tiny

MACHINES = (
    "4 cores, 8 GiB DDR4-3200 single channel",
    "rtx-4090",
    "rtx-4090, rx-7900-xtx, 16 cores, 64 GiB DDR5-4800 dual channel",
    "3 x rtx-3090, 16 cores, 256 GiB DDR5-4800 8 channels",
    "m4-max",
)
DISK = {
    "name": "\x1b[2J", "mount": None, "kind": None, "free_bytes": None, "sequential": None,
    "random": None,
}  # fmt: skip
WISHES = (
    Wishes(),
    Wishes(gpu_layers=0, mtp=1, parallel=2),
    Wishes(gpu_layers=999, cpu_expert_layers=999, expert_cache_bytes=1 << 30),
    Wishes(gpu_layers=3, budget_bytes=4 << 30, unified=True),
    Wishes(cpu_expert_layers=2, expert_cache_bytes=1 << 20),
)
"""Every corner that the planner has for placements: none, all, part, more than there are."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ModelSpec]:
    """Dense, with dense blocks before those with experts, with experts and MTP."""
    folder = tmp_path_factory.mktemp("models")
    return [read_model(write_tiny(name, folder)) for name in ("llama", "deepseek2", "qwen35moe")]


@cache
def planner(wishes: Wishes = Wishes()) -> Planner:  # noqa: B008
    machine = hardware_named("2 × rtx-4090")
    return Planner(spec(), machine, wishes, MachineSpeed(spec(), machine))


@cache
def plan() -> Plan:
    return make_plan(planner())


@cache
def as_json() -> str:
    return json.dumps(plan().to_json())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(as_json(), encoding="utf-8")
    found = PlanFile.read(path)
    assert found == PlanFile.of(plan())
    assert found.settings == plan().settings
    assert found.hardware == plan().hardware
    assert found.reasons == plan().reasons
    assert found.model.block_count == spec().block_count
    assert found.model.expert_blocks == spec().expert_blocks
    assert [device.total_bytes for device in found.memory] == [
        device.total_bytes for device in plan().ledger.devices
    ]


def test_the_engine_is_kept() -> None:
    """A plan of before that has none of its own; one that is named by a path has a whole one."""
    value = json.loads(as_json())
    engine = PlannedEngine("/opt/ik/llama-server", "ik_llama.cpp", "4567 (abc)")
    changed = {
        **value,
        "engine": engine.to_json(),
        "settings": {**value["settings"], "engine": engine.id},
    }
    assert PlanFile.from_json(changed).engine == engine
    del value["engine"], value["settings"]["engine"]
    assert PlanFile.from_json(value).engine == PlannedEngine()
    for name in ("./llama-server", "bin/llama-server"):
        changed["settings"]["engine"] = changed["engine"]["id"] = name
        with pytest.raises(NotAPlan, match="in every folder"):
            PlanFile.from_json(changed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"GGUF\x03\x00", "not JSON"),
        (b"[]", "not a plan"),
        (b"{}", "not a plan"),
        (b'{"settings": {}, "model": {}, "version": 99}', "version 99"),
        (b'{"settings": {}, "model": {}, "version": 1}', "damaged"),
        (b"[" * 200_000, "not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(NotAPlan, match=said) as caught:
        PlanFile.read(path)
    assert caught.value.hint


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotAPlan, match="No such file"):
        PlanFile.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("settings", "context"), 0),
        (("settings", "context"), "8192"),
        (("settings", "parallel"), True),
        (("settings", "threads"), -1),
        (("settings", "cache_type_k"), "q2_k"),
        (("settings", "unified"), 1),
        (("settings", "tensor_split"), [float("nan")]),
        (("settings", "tensor_split"), []),
        (("settings", "prompt_cache_bytes"), -1),
        (("settings", "turbo"), True),
        (("settings", "engine"), "another"),
        (("settings", "load_mode"), "fast"),
        (("settings", "mtp_p_min"), 1.5),
        (("settings", "batch"), 0),
        (("engine", "id"), "another"),
        (("engine", "id"), ""),
        (("engine", "family"), "vllm"),
        (("engine", "version"), 7),
        (("engine", "version"), "1\n2"),
        (("settings", "tensor_split"), [1.0]),
        (("settings", "tensor_split"), [1.0, 1.0, 1.0]),
        (("settings", "tensor_split"), [0.0, 0]),
        (("settings", "tensor_split"), [10**400, 1]),
        (("settings", "tensor_split"), [1e308, 1e308]),
        (("settings", "cpu_expert_layers"), 99),
        (("settings", "expert_cache_bytes"), 1 << 30),
        (("memory",), []),
        (("memory", 0, "device"), "GPU0"),
        (("memory", 1, "device"), "GPU1"),
        (("memory", 2, "device"), "GPU2"),
        (("findings",), [{"severity": "awful"}]),
        (("findings",), [{"severity": "fail", "code": 5}]),
        (("hardware", "system"), 5),
        (("hardware", "name"), 5),
        (("hardware", "cpu", "model"), 5),
        (("hardware", "cpu", "instruction_sets"), [5]),
        (("hardware", "cpu", "usable_cores"), 1.5),
        (("hardware", "gpus", 0, "name"), 5),
        (("hardware", "gpus", 0, "shared"), "no"),
        (("hardware", "gpus", 0, "capability"), [float("inf"), 0]),
        (("hardware", "memory", "total_bytes"), 10**400),
        (("hardware", "gpus", 0, "name"), "\x1b]0;owned\x07"),
        (("hardware", "gpus", 1, "name"), "RTX \u202e0904"),
        (("hardware", "cpu", "model"), "CPU\u2028x"),
        (("hardware", "disks"), [DISK]),
        (("model", "name"), "\x9b2J"),
        (("model", "quantization"), "\u2066"),
        (("reasons", 0, "because"), "\x1b[31m"),
        (("model", "files"), []),
        (("model", "files", 0, "location"), "model\n--host 0.0.0.0"),
        (("model", "expert_blocks"), [99]),
        (("model", "block_count"), 10**9),
        (("memory", 0, "total_bytes"), None),
        (("hardware", "cpu"), None),
    ],
)
def test_impossible_values_are_refused(place: tuple[Any, ...], value: object) -> None:
    changed = json.loads(as_json())
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(NotAPlan, match="damaged"):
        PlanFile.from_json(changed)


def test_a_message_names_the_file_and_obeys_nothing() -> None:
    changed = json.loads(as_json())
    changed["hardware"]["source"] = "\x1b[2J" * 1000
    with pytest.raises(NotAPlan, match=r"^plan\.json is a damaged plan") as caught:
        PlanFile.from_json(changed, "plan.json")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_names_may_have_any_sign_that_people_see() -> None:
    changed = json.loads(as_json())
    for name in ("a\u00a0b.gguf", "\u3000.gguf", "👩\u200d💻.gguf", "日本 é.gguf"):
        changed["model"]["files"][0]["location"] = name
        assert PlanFile.from_json(changed).model.files[0] == name


def test_what_made_a_plan_fail_is_kept() -> None:
    failing = make_plan(planner(Wishes(cache_type="q8_0", flash_attention="off")))
    found = PlanFile.of(failing).findings
    assert [finding.code for finding in found] == ["quantized-values-need-flash-attention"]
    assert found == tuple(one for one in failing.findings if one.severity is Severity.FAIL)
    assert PlanFile.of(plan()).findings == ()


@pytest.mark.parametrize("machine", MACHINES)
def test_whatever_is_planned_is_read(machine: str, models: list[ModelSpec]) -> None:
    inventory = hardware_named(machine)
    for model in models:
        speed = MachineSpeed(model, inventory)
        for wishes in WISHES:
            made = make_plan(Planner(model, inventory, wishes, speed), with_alternatives=False)
            found = PlanFile.from_json(json.loads(json.dumps(made.to_json())))
            assert found.settings == made.settings
            assert found.hardware == inventory


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in inner:
        found.append((*at, key))
        if isinstance(child, dict | list):
            found += places(child, (*at, key))
    return found


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none()),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_change_of_one_value_gets_through_as_another_error(data: st.DataObject) -> None:
    changed = copy.deepcopy(json.loads(as_json()))
    place = data.draw(st.sampled_from(places(changed)))
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = data.draw(JUNK)
    with contextlib.suppress(NotAPlan):
        PlanFile.from_json(changed)


def test_a_replay_keeps_every_setting() -> None:
    odd = replace(plan().settings, prompt_cache_bytes=7 * MIB, context_checkpoints=3, ubatch=64)
    again = replay(planner(), odd)
    assert again.settings == odd
    kinds = {line.kind: line.size_bytes for d in again.ledger.devices for line in d.lines}
    assert kinds["prompt cache"] == 7 * MIB


def test_a_replay_of_a_plan_has_its_memory() -> None:
    again = replay(planner(), plan().settings)
    assert [d.total_bytes for d in again.ledger.devices] == [
        d.total_bytes for d in plan().ledger.devices
    ]
    assert again.fits is plan().fits


def test_what_the_user_bounds_is_bounded() -> None:
    wishes = Wishes(prompt_cache_bytes=3 * MIB, context_checkpoints=1)
    found = make_plan(planner(wishes))
    assert found.settings.prompt_cache_bytes == 3 * MIB
    assert found.settings.context_checkpoints == 1
    sources = {reason.setting: reason.source for reason in found.reasons}
    assert sources["prompt_cache_bytes"] == sources["context_checkpoints"] == "user"
