"""The axes of real shapes on described machines, by formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moestro.engine.registry import EMBEDDED, FEATURES, MTP, REPACK, UNIFIED, EngineInfo
from moestro.hardware import hardware_named
from moestro.model import ModelSpec, read_model
from moestro.planning import Planner, Wishes
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.settings import Settings
from moestro.tune.axis import Axis
from moestro.tune.candidate import Space
from moestro.tune.space import space
from tests.shapes import PUBLISHED, write_header

OURS = EngineInfo(EMBEDDED, "llama.cpp", "1", "embedded")
OTHER = EngineInfo(
    "ik_llama.cpp-1", "ik_llama.cpp", "1", "built",
    features=frozenset(FEATURES) - {UNIFIED, MTP},
)  # fmt: skip
LLAMA = replace(OTHER, id="llama.cpp-2", family="llama.cpp")
HOST = "4 cores, 64 GiB DDR5-5600 dual channel"
CARD = "rtx-4070, 64 GiB DDR5-5600 dual channel"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("shapes")
    return {
        name: read_model(write_header(PUBLISHED[name](), folder / f"{name}.gguf", vocab_tokens=256))
        for name in ("Qwen3.6-35B-A3B", "Qwen3-30B-A3B")
    }


def made(
    model: ModelSpec,
    machine: str = HOST,
    wishes: Wishes | None = None,
    fixed: frozenset[str] = frozenset(),
    engines: tuple[EngineInfo, ...] = (OURS, OTHER),
    streams: int = 1,
    **more: Any,
) -> tuple[Space, Settings]:
    inventory = hardware_named(machine)
    planner = Planner(model, inventory, wishes or Wishes(), MachineSpeed(model, inventory))
    start = planner.decide()[0].settings
    more.setdefault("logical_cores", 4)
    return space(planner, start, engines, fixed, streams, **more), start


def named(found: Space) -> dict[str, Axis]:
    return {axis.name: axis for axis in found.axes}


def test_every_engine_with_and_without_repacking_and_the_defaults(
    models: dict[str, ModelSpec],
) -> None:
    found, start = made(models["Qwen3-30B-A3B"])
    pairs = {(one.settings.engine, one.settings.repack) for one in found.opening}
    assert pairs == {(EMBEDDED, False), (OTHER.id, True), (OTHER.id, False), (EMBEDDED, True)}
    defaults = found.opening[-1].settings
    assert (defaults.batch, defaults.ubatch, defaults.unified) == (2048, 512, True)
    assert defaults.parallel == max(start.parallel, 4)
    assert defaults.context == start.context
    assert not any(one.settings.unified for one in found.opening if one.settings.engine == OTHER.id)


def test_one_slot_is_tried_where_several_cost_flash_attention(
    models: dict[str, ModelSpec],
) -> None:
    found, start = made(models["Qwen3-30B-A3B"], streams=4)
    arms = {one.label: one.settings for one in found.opening if one.settings.engine == OTHER.id}
    one_slot = arms[f"{OTHER.id}, 1 slot"]
    assert (one_slot.parallel, one_slot.flash_attention) == (1, start.flash_attention)
    assert {one.flash_attention for one in arms.values() if one.parallel > 1} == {"off"}
    fixed, _ = made(models["Qwen3-30B-A3B"], streams=4, fixed=frozenset({"parallel"}))
    assert not any("1 slot" in one.label for one in fixed.opening)


@pytest.mark.parametrize(
    ("version", "sets", "twin"),
    [
        ("b7", ("AVX", "AVX2"), True),
        ("b8", ("AVX", "AVX2"), False),
        ("b7", ("AVX", "AVX2", "AVX-512"), False),
        ("b7", (), False),
    ],
)
def test_the_same_code_for_the_same_instructions_is_a_twin(
    models: dict[str, ModelSpec], version: str, sets: tuple[str, ...], twin: bool
) -> None:
    ours = replace(OURS, version="2026.10.7", instruction_sets=("AVX", "AVX2") if sets else ())
    built = replace(LLAMA, version=version, instruction_sets=sets)
    found, _ = made(models["Qwen3-30B-A3B"], engines=(ours, OTHER, built))
    assert found.twins == (frozenset({built.id}) if twin else frozenset())
    on_a_gpu, _ = made(
        models["Qwen3-30B-A3B"], engines=(ours, OTHER, replace(built, devices=("CUDA0",)))
    )
    assert not on_a_gpu.twins
    beside_a_card, _ = made(models["Qwen3-30B-A3B"], CARD, engines=(ours, OTHER, built))
    assert not beside_a_card.twins


def test_engines_that_do_not_know_the_model_are_named(models: dict[str, ModelSpec]) -> None:
    strange = replace(OTHER, architectures=frozenset({"qwen2"}))
    found, _ = made(models["Qwen3-30B-A3B"], engines=(OURS, strange))
    assert all(one.settings.engine == EMBEDDED for one in found.opening)
    assert any("does not know qwen3moe" in one.because for one in found.excluded)


def test_what_is_fixed_stays_fixed(models: dict[str, ModelSpec]) -> None:
    fixed = frozenset({"engine", "threads", "ubatch", "mtp_depth", "flash_attention", "parallel"})
    found, start = made(models["Qwen3.6-35B-A3B"], fixed=fixed)
    tried = [one.settings for one in found.opening]
    tried += [value.at(start) for axis in found.axes for value in axis.values]
    for settings in tried:
        assert all(getattr(settings, name) == getattr(start, name) for name in fixed)
        assert settings.context == start.context
    assert not {"threads", "ubatch", "mtp", "flash_attention"} & set(named(found))
    assert any("you fixed ubatch" in one.because for one in found.excluded)


def test_mtp_needs_layers_and_an_engine_that_has_it(models: dict[str, ModelSpec]) -> None:
    assert "mtp" not in named(made(models["Qwen3-30B-A3B"])[0])
    found, start = made(models["Qwen3.6-35B-A3B"])
    axis = named(found)["mtp"]
    assert [value.at(start).mtp_depth for value in axis.values] == [0, 1, 2, 3, 4]
    assert axis.applies(start)
    assert not axis.applies(replace(start, engine=OTHER.id))
    p_min = named(found)["mtp_p_min"]
    assert not p_min.applies(start)
    assert p_min.applies(replace(start, mtp_depth=2))


def test_quality_is_not_for_sale_unless_allowed(models: dict[str, ModelSpec]) -> None:
    found, _ = made(models["Qwen3-30B-A3B"])
    assert "cache_type" not in named(found)
    assert any(one.axis == "cache_type" for one in found.excluded)
    allowed, start = made(models["Qwen3-30B-A3B"], allow_quality=True)
    types = {value.at(start).cache_type_k for value in named(allowed)["cache_type"].values}
    assert types == {"f16", "q8_0"}


def test_threads_and_ubatches_are_those_that_make_sense(models: dict[str, ModelSpec]) -> None:
    wishes = Wishes(prompt_tokens=200, output_tokens=100)
    found, start = made(models["Qwen3-30B-A3B"], wishes=wishes, logical_cores=8)
    sizes = [value.at(start).ubatch for value in named(found)["ubatch"].values]
    assert sizes == [128, 256, 512]  # 512 is where it starts
    counts = [value.at(start).threads for value in named(found)["threads"].values]
    assert counts[0] >= 1
    assert start.threads in counts
    assert max(counts) <= 8


def test_one_slot_for_several_users_is_a_question_for_processors(
    models: dict[str, ModelSpec],
) -> None:
    def counts(machine: str) -> set[int]:
        wishes = Wishes(parallel=4)
        found, start = made(models["Qwen3-30B-A3B"], machine, wishes, streams=8)
        return {value.at(start).parallel for value in named(found)["slots"].values}

    assert 1 in counts(HOST)
    assert 1 not in counts(CARD)


def test_nobody_gets_fewer_slots_than_asked_for(models: dict[str, ModelSpec]) -> None:
    wishes = Wishes(parallel=4)
    found, start = made(
        models["Qwen3-30B-A3B"], wishes=wishes, fixed=frozenset({"parallel"}), streams=4
    )
    assert all(value.at(start).parallel == 4 for value in named(found)["slots"].values)


def test_the_plan_speaks_against_what_does_not_fit(models: dict[str, ModelSpec]) -> None:
    found, start = made(models["Qwen3.6-35B-A3B"], CARD)
    far = replace(start, cpu_expert_layers=0)
    because = found.why_not(far, start)
    assert because is not None
    assert "over the plan" in because
    assert "GPU0" in because
    assert found.why_not(start, start) is None
    assert found.why_not(replace(start, context=start.context // 2), start) is not None
    off = replace(start, flash_attention="off", cache_type_k="q8_0", cache_type_v="q8_0")
    assert "flash attention" in (found.why_not(off, start) or "")
    unable = replace(start, engine=OTHER.id, mtp_depth=2)
    assert "cannot" in (found.why_not(unable, start) or "")


def test_the_forecast_speaks_against_what_is_hopeless(models: dict[str, ModelSpec]) -> None:
    found, start = made(models["Qwen3.6-35B-A3B"], CARD)
    said = found.why_not(replace(start, ubatch=16), start)
    assert said is not None
    assert "forecast" in said
    assert "slower" in said


def test_room_is_made_on_the_gpu(models: dict[str, ModelSpec]) -> None:
    found, start = made(models["Qwen3.6-35B-A3B"], CARD)
    wanted = replace(start, mtp_depth=2)
    assert found.why_not(wanted, start) is not None
    fitted = found.fitted(wanted)
    assert fitted.cpu_expert_layers > start.cpu_expert_layers
    assert found.why_not(fitted, start) is None
    stays, start = made(models["Qwen3.6-35B-A3B"], CARD, fixed=frozenset({"cpu_expert_layers"}))
    assert stays.fitted(wanted) == wanted


def test_a_gpu_has_axes_of_its_own(models: dict[str, ModelSpec]) -> None:
    found, start = made(models["Qwen3.6-35B-A3B"], CARD)
    axes = named(found)
    assert {"cpu_expert_layers", "expert_cache", "cache_on_host"} <= set(axes)
    assert all(axis.place(start) is not None for axis in found.axes)
    host = named(made(models["Qwen3.6-35B-A3B"])[0])
    assert not {"cpu_expert_layers", "expert_cache", "cache_on_host"} & set(host)
    assert REPACK in OTHER.features


def test_flash_attention_of_ik_llama_cpp_serves_one_slot(models: dict[str, ModelSpec]) -> None:
    """It stops on long prompts in any other."""
    model, wishes = models["Qwen3-30B-A3B"], Wishes(parallel=4)

    def arms(**more: Any) -> dict[str, tuple[int, str]]:
        found, _ = made(model, wishes=wishes, engines=(OURS, OTHER, LLAMA), **more)
        return {
            one.settings.engine: (one.settings.parallel, one.settings.flash_attention)
            for one in reversed(found.opening)
        }

    assert arms()["ik_llama.cpp-1"] == (1, "auto")
    assert arms()["llama.cpp-2"] == (4, "auto")
    assert arms(streams=2)["ik_llama.cpp-1"] == (4, "off")
    assert arms(fixed=frozenset({"parallel"}))["ik_llama.cpp-1"] == (4, "off")
    assert "ik_llama.cpp-1" not in arms(fixed=frozenset({"parallel", "flash_attention"}))
    found, start = made(model, wishes=wishes, engines=(OURS, OTHER), streams=2)
    risky = replace(start, engine="ik_llama.cpp-1", unified=False, mtp_depth=0)
    assert "any slot but the first" in (found.why_not(risky, start) or "")
    assert found.why_not(replace(risky, flash_attention="off"), start) is None
