"""The reasons beside the settings are true."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.hardware import Inventory, hardware_named
from moestro.model import ModelSpec, read_model
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.settings import Reason
from moestro.units import GIB
from tests.machines import WEAK_HOST
from tests.shapes import PUBLISHED, write_header

ASKED = "you asked for it"


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("shapes") / "Mixtral-8x7B.gguf"
    return read_model(write_header(PUBLISHED["Mixtral-8x7B"](), path, vocab_tokens=256))


def planned(model: ModelSpec, machine: Inventory, wishes: Wishes) -> Plan:
    planner = Planner(model, machine, wishes, MachineSpeed(model, machine))
    return make_plan(planner, with_alternatives=False)


def reasons(plan: Plan) -> dict[str, Reason]:
    return {reason.setting: reason for reason in plan.reasons}


def test_nobody_asked_for_what_a_wish_did_not_become(moe: ModelSpec) -> None:
    """Without a GPU there is no layer on one, whatever was wished."""
    host = hardware_named("8 cores, 64 GiB DDR5-5600 dual channel")
    wishes = Wishes(gpu_layers=10, cpu_expert_layers=4, expert_cache_bytes=4 * GIB)
    found = reasons(planned(moe, host, wishes))
    assert found["gpu_layers"] == Reason("gpu_layers", "no GPU was found", "computed")
    for name in ("gpu_layers", "cpu_expert_layers", "expert_cache_bytes"):
        assert found[name].because != ASKED
        assert found[name].source != "user"


def test_more_layers_than_there_are(moe: ModelSpec) -> None:
    card = hardware_named("rtx-4090")
    plan = planned(moe, card, Wishes(gpu_layers=99, cpu_expert_layers=50, expert_cache_bytes=0))
    assert (plan.settings.gpu_layers, plan.settings.cpu_expert_layers) == (33, 32)
    found = reasons(plan)
    assert found["gpu_layers"].because == "all that there are; you asked for 99"
    assert found["cpu_expert_layers"].because == "all that there are; you asked for 50"
    assert found["expert_cache_bytes"].because == ASKED
    assert "user" not in (found["gpu_layers"].source, found["cpu_expert_layers"].source)
    obeyed = reasons(planned(moe, card, Wishes(gpu_layers=7, cpu_expert_layers=2)))
    assert obeyed["gpu_layers"] == Reason("gpu_layers", ASKED, "user")
    assert obeyed["cpu_expert_layers"] == Reason("cpu_expert_layers", ASKED, "user")


def test_without_a_forecast_nothing_is_said_of_how_long_a_request_takes(moe: ModelSpec) -> None:
    card = hardware_named("rtx-4090")
    known = reasons(planned(moe, card, Wishes(expert_cache_bytes=0)))["ubatch"]
    assert known.source == "computed"
    unknown = replace(card, gpus=(replace(card.gpus[0], bandwidth=None),))
    plan = planned(moe, unknown, Wishes())
    assert plan.speed is None
    ubatch = reasons(plan)["ubatch"]
    assert ubatch.source == "assumed"
    assert "speed is unknown" in ubatch.because


def test_a_cache_for_experts_names_both_times(moe: ModelSpec, tmp_path: Path) -> None:
    description = tmp_path / "weak.toml"
    description.write_text(WEAK_HOST)
    weak = hardware_named(str(description))
    plan = planned(moe, weak, Wishes())
    without = planned(moe, weak, Wishes(expert_cache_bytes=0, ubatch=plan.settings.ubatch))
    assert plan.settings.expert_cache_bytes
    times = re.findall(r"(\d+\.\d) s", reasons(plan)["expert_cache_bytes"].because)
    assert plan.request_seconds is not None
    assert without.request_seconds is not None
    assert times == [f"{plan.request_seconds:.1f}", f"{without.request_seconds:.1f}"]
