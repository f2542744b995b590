"""Plans for published shapes on machines from the catalogue, by formula: no engine is asked."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from moestro.findings import Finding, Severity
from moestro.hardware import Inventory, hardware_named
from moestro.model import ModelSpec, read_model
from moestro.planning import Plan, Planner, Settings, Wishes, make_plan
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.observed import Residuals
from moestro.planning.placement import block_count, expert_blocks
from moestro.planning.settings import PlannedEngine
from moestro.units import GIB
from tests.machines import WEAK_HOST
from tests.planning.kernel_rates import machine as measured_machine
from tests.shapes import PUBLISHED, write_header

NAMES = (
    "Qwen3.6-35B-A3B",
    "Qwen3-30B-A3B",
    "Mixtral-8x7B",
    "DeepSeek-V3",
    "SmolLM2-135M",
    "gpt-oss-20b",
    "GLM-4.5-Air",
)


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """Read from header-only files of true shape."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        name: read_model(write_header(PUBLISHED[name](), folder / f"{name}.gguf", vocab_tokens=256))
        for name in NAMES
    }


def host(memory_gib: int, cores: int = 8) -> Inventory:
    return hardware_named(f"{cores} cores, {memory_gib} GiB DDR5-5600 dual channel")


def planned(model: ModelSpec, machine: Inventory, wishes: Wishes | None = None) -> Plan:
    return make_plan(Planner(model, machine, wishes or Wishes(), MachineSpeed(model, machine)))


def codes(plan: Plan, severity: Severity) -> list[str]:
    return [finding.code for finding in plan.findings if finding.severity is severity]


def test_a_24_gb_card_and_the_four_models(specs: dict[str, ModelSpec]) -> None:
    card = hardware_named("rtx-4090")
    for name in ("Qwen3.6-35B-A3B", "Qwen3-30B-A3B", "Mixtral-8x7B"):
        plan = planned(specs[name], card)
        assert plan.fits, name
        every = block_count(specs[name]) + 1
        assert plan.settings.gpu_layers == every
        for device in plan.ledger.devices:
            assert device.capacity_bytes is not None
            assert device.total_bytes <= device.capacity_bytes
        assert plan.speed is not None
        assert plan.speed.decode is not None
        assert plan.speed.decode.low < plan.speed.decode.expected < plan.speed.decode.high
        assert plan.speed.decode_ceiling is not None
        assert plan.speed.decode.expected < plan.speed.decode_ceiling
    assert planned(specs["Mixtral-8x7B"], card).settings.cpu_expert_layers > 0
    assert planned(specs["Qwen3-30B-A3B"], card).settings.cpu_expert_layers == 0
    giant = planned(specs["DeepSeek-V3"], card)
    assert not giant.fits
    short = next(finding for finding in giant.findings if finding.code == "memory-short")
    assert short.fix is not None
    assert "more of free host memory" in short.fix


def test_one_expert_layer_fewer_would_not_fit(specs: dict[str, ModelSpec]) -> None:
    """The placement is tight: the planner leaves nothing on the table."""
    model, card = specs["Mixtral-8x7B"], hardware_named("rtx-4090")
    wishes = Wishes(context=8192, parallel=1, cache_type="f16")
    planner = Planner(model, card, wishes, MachineSpeed(model, card))
    trial, _ = planner.decide()
    assert trial.fits
    fewer = replace(
        wishes,
        cpu_expert_layers=trial.settings.cpu_expert_layers - 1,
        ubatch=128,
        gpu_layers=trial.settings.gpu_layers,
    )
    assert not Planner(model, card, fewer, MachineSpeed(model, card)).decide()[0].fits


def test_every_setting_has_exactly_one_reason(specs: dict[str, ModelSpec]) -> None:
    names = {field.name for field in fields(Settings)}
    for machine in (host(64), hardware_named("rtx-4090")):
        for spec in specs.values():
            for wishes in (Wishes(), Wishes(context=4096, parallel=3, gpu_layers=2, ubatch=64)):
                reasons = [reason.setting for reason in planned(spec, machine, wishes).reasons]
                assert len(reasons) == len(set(reasons))
                # The cache types are chosen together, and share a reason. Where the cache goes
                # is not chosen.
                # What is only obeyed has one where it is not as usual.
                unsaid = {"cache_type_v", "cache_on_host", *OBEYED}
                assert set(reasons) == names - unsaid


OBEYED = {"engine", "threads_batch", "batch", "repack", "load_mode", "mtp_p_min", "ngram"}


def test_what_is_only_obeyed_has_a_reason_where_it_is_not_as_usual(
    specs: dict[str, ModelSpec],
) -> None:
    wishes = Wishes(
        engine="ik_llama.cpp-1", threads_batch=3, batch=700, repack=False, load_mode="mlock",
        mtp_p_min=0.5, ngram="map-k",
    )  # fmt: skip
    plan = planned(specs["Qwen3.6-35B-A3B"], host(64), wishes)
    found = {reason.setting: reason for reason in plan.reasons}
    for name in OBEYED:
        assert getattr(plan.settings, name) == getattr(wishes, name)
        assert found[name].source == "user"
    assert plan.engine == PlannedEngine("ik_llama.cpp-1", "ik_llama.cpp")


def test_an_engine_that_attends_in_one_slot_only(specs: dict[str, ModelSpec]) -> None:
    model = specs["Qwen3-30B-A3B"]
    for parallel, chosen in ((1, "auto"), (2, "off")):
        plan = planned(model, host(64), Wishes(engine="ik_llama.cpp-1", parallel=parallel))
        assert plan.settings.flash_attention == chosen
        (reason,) = (one for one in plan.reasons if one.setting == "flash_attention")
        assert ("any slot but the first" in reason.because) is (chosen == "off")
    told = Wishes(engine="ik_llama.cpp-1", parallel=2, flash_attention="on")
    assert planned(model, host(64), told).settings.flash_attention == "on"


def test_the_cache_in_host_memory_makes_room_for_experts(specs: dict[str, ModelSpec]) -> None:
    model, card = specs["Qwen3.6-35B-A3B"], hardware_named("rtx-4070, 64 GiB DDR5-5600")
    wishes = Wishes(context=65536, parallel=2)
    plain = planned(model, card, wishes)
    moved = planned(model, card, replace(wishes, cache_on_host=True))
    assert (plain.settings.cache_on_host, moved.settings.cache_on_host) == (False, True)
    assert moved.settings.cpu_expert_layers < plain.settings.cpu_expert_layers
    (reason,) = (one for one in moved.reasons if one.setting == "cache_on_host")
    assert reason.source == "user"
    alone = planned(model, host(64), replace(wishes, cache_on_host=True))
    assert not alone.settings.cache_on_host
    assert "no-gpu" in {finding.code for finding in alone.findings}


def test_what_the_user_fixed_stays_fixed(specs: dict[str, ModelSpec]) -> None:
    wishes = Wishes(
        context=50_000, parallel=3, cache_type="q4_0", unified=True, ubatch=64, threads=5,
        gpu_layers=7, cpu_expert_layers=2, flash_attention="on", mtp=2,
    )  # fmt: skip
    plan = planned(specs["Qwen3.6-35B-A3B"], hardware_named("rtx-4090"), wishes)
    settings = plan.settings
    assert (settings.context, settings.parallel) == (50_000, 3)
    assert settings.cache_type_k == settings.cache_type_v == "q4_0"
    assert (settings.unified, settings.ubatch, settings.threads) == (True, 64, 5)
    assert (settings.gpu_layers, settings.cpu_expert_layers) == (7, 2)
    assert (settings.flash_attention, settings.mtp_depth) == ("on", 2)
    by_user = {reason.setting for reason in plan.reasons if reason.source == "user"}
    assert by_user >= {"context", "parallel", "cache_type_k", "ubatch", "threads", "mtp_depth"}


def test_a_budget_bounds_the_card(specs: dict[str, ModelSpec]) -> None:
    model, card = specs["Qwen3-30B-A3B"], hardware_named("rtx-4090")
    plan = planned(model, card, Wishes(budget_bytes=12 * GIB))
    gpu = next(device for device in plan.ledger.devices if device.device == "GPU0")
    assert plan.fits
    assert gpu.total_bytes <= 12 * GIB
    assert plan.settings.cpu_expert_layers > 0
    impossible = planned(model, card, Wishes(budget_bytes=1 << 20))
    assert not impossible.fits
    assert "memory-short" in codes(impossible, Severity.FAIL)


def test_contradictions_are_said(specs: dict[str, ModelSpec]) -> None:
    small, here = specs["SmolLM2-135M"], host(16)
    mtp = planned(small, here, Wishes(mtp=1))
    assert "mtp-absent" in codes(mtp, Severity.FAIL)
    quantized = planned(small, here, Wishes(cache_type="q8_0", flash_attention="off"))
    assert "quantized-values-need-flash-attention" in codes(quantized, Severity.FAIL)
    assert "no-gpu" in codes(planned(small, here, Wishes(gpu_layers=3)), Severity.WARN)
    long = planned(small, here, Wishes(context=1024, prompt_tokens=2000, output_tokens=10))
    assert "workload-beyond-context" in codes(long, Severity.WARN)
    beyond = planned(small, here, Wishes(context=100_000))
    assert "context-beyond-training" in codes(beyond, Severity.WARN)
    assert "no-experts" in codes(
        planned(small, hardware_named("rtx-4090"), Wishes(cpu_expert_layers=3)), Severity.WARN
    )


def test_bounds_for_what_would_grow(specs: dict[str, ModelSpec]) -> None:
    settings = planned(specs["Qwen3.6-35B-A3B"], host(64)).settings
    assert 0 < settings.prompt_cache_bytes <= GIB
    held = settings.context_checkpoints * settings.parallel * 65_863_680
    assert 0 < held <= 512 << 20
    tight = planned(specs["SmolLM2-135M"], host(1), Wishes(context=8192, parallel=8)).settings
    assert tight.prompt_cache_bytes < 60 << 20


def test_alternatives_are_worked_out(specs: dict[str, ModelSpec]) -> None:
    plan = planned(specs["Mixtral-8x7B"], hardware_named("rtx-4090"), Wishes(parallel=1))
    changes = {other.change: other.trial for other in plan.alternatives}
    doubled = next(trial for change, trial in changes.items() if "2 streams" in change)
    assert doubled.settings.parallel == 2
    assert doubled.settings.cpu_expert_layers >= plan.settings.cpu_expert_layers
    smaller = changes["cache in q8_0"]
    assert smaller.settings.cpu_expert_layers <= plan.settings.cpu_expert_layers


def test_leading_dense_blocks_do_not_count(specs: dict[str, ModelSpec]) -> None:
    model, machine = specs["GLM-4.5-Air"], hardware_named("rtx-4090, 128 GiB DDR5-5600")
    plan = planned(model, machine)
    assert plan.fits
    assert 0 < plan.settings.cpu_expert_layers <= len(expert_blocks(model))
    assert expert_blocks(model)[0] == 1


def test_two_uneven_cards(specs: dict[str, ModelSpec]) -> None:
    machine = hardware_named("rtx-4090, rtx-3060, 64 GiB DDR5-5600 dual channel")
    plan = planned(specs["Mixtral-8x7B"], machine)
    assert plan.fits
    assert plan.settings.tensor_split is not None
    assert len(plan.settings.tensor_split) == 2
    assert plan.settings.cpu_expert_layers == 0


def test_the_plan_file(specs: dict[str, ModelSpec], tmp_path: Path) -> None:
    import json

    plan = planned(specs["Qwen3.6-35B-A3B"], hardware_named("rtx-4090"))
    text = json.dumps(plan.to_json())
    data = json.loads(text)
    assert data["version"] == 1
    assert set(data["workload"]) == {"context", "parallel", "prompt_tokens", "output_tokens"}
    for device in data["memory"]:
        parts = [device[f"{part}_bytes"] for part in ("weights", "cache", "compute", "other")]
        assert sum(parts) == device["total_bytes"]
    assert Settings.from_json(data["settings"]) == plan.settings
    assert set(data["speed"]["decode_tokens_per_second"]) >= {"expected", "low", "high"}


def test_a_gpu_that_shares_the_hosts_memory_does_not_double_it(specs: dict[str, ModelSpec]) -> None:
    """48 GiB of weights in a Mac of 64 GiB fit neither beside nor on top of each other twice."""
    mac = hardware_named("m4-max")
    plan = planned(specs["GLM-4.5-Air"], mac)
    taken = sum(device.total_bytes for device in plan.ledger.devices)
    assert plan.fits == (taken <= mac.memory.available_bytes)
    fitting = planned(specs["Qwen3-30B-A3B"], mac)
    assert fitting.fits
    assert fitting.settings.cpu_expert_layers == 0


def test_a_cache_for_experts_where_the_link_is_faster_than_the_host(
    specs: dict[str, ModelSpec], tmp_path: Path
) -> None:
    """Copying an expert to the GPU beats computing it on a host with slow memory, and on no other:
    then layers of experts on the GPU are worth more than a cache of as many bytes."""
    description = tmp_path / "weak.toml"
    description.write_text(WEAK_HOST)
    weak, usual = hardware_named(str(description)), hardware_named("rtx-4090")
    model = specs["Mixtral-8x7B"]
    plan = planned(model, weak)
    assert plan.fits
    assert plan.settings.expert_cache_bytes > GIB
    assert plan.settings.cpu_expert_layers == len(expert_blocks(model))
    assert plan.settings.context >= 8192, "an expert cache is no reason for less context"
    without = planned(model, weak, Wishes(expert_cache_bytes=0))
    assert without.settings.expert_cache_bytes == 0
    assert plan.request_seconds is not None
    assert without.request_seconds is not None
    assert plan.request_seconds < without.request_seconds
    assert planned(model, usual).settings.expert_cache_bytes == 0
    reason = next(r for r in planned(model, usual).reasons if r.setting == "expert_cache_bytes")
    assert "uniform" in reason.because


def test_an_expert_cache_that_cannot_be(specs: dict[str, ModelSpec]) -> None:
    card = hardware_named("rtx-4090")
    idle = planned(specs["SmolLM2-135M"], card, Wishes(expert_cache_bytes=GIB))
    assert "expert-cache-idle" in codes(idle, Severity.WARN)
    assert idle.settings.expert_cache_bytes == 0
    small = planned(specs["Mixtral-8x7B"], card, Wishes(expert_cache_bytes=1 << 20))
    assert "expert-cache-too-small" in codes(small, Severity.FAIL)
    asked = planned(specs["Mixtral-8x7B"], card, Wishes(expert_cache_bytes=2 * GIB))
    assert asked.settings.expert_cache_bytes == 2 * GIB
    assert asked.fits
    assert "no-gpu" in codes(
        planned(specs["Mixtral-8x7B"], host(64), Wishes(expert_cache_bytes=GIB)), Severity.WARN
    )


def test_memory_that_nobody_knows_is_no_yes(specs: dict[str, ModelSpec]) -> None:
    card = hardware_named("rtx-4090")
    nameless = replace(card.gpus[0], memory_bytes=None, free_bytes=None)
    model = specs["SmolLM2-135M"]
    forced = planned(model, replace(card, gpus=(nameless,)), Wishes(gpu_layers=99))
    assert forced.fits is None
    assert forced.to_json()["fits"] is None
    assert "capacity-unknown" in codes(forced, Severity.UNKNOWN)
    unheard = planned(replace(model, layers=None), card)
    assert unheard.fits is None
    assert "cache-unknown" in codes(unheard, Severity.UNKNOWN)


@pytest.mark.parametrize("name", ["m4-max", "m2-ultra"])
def test_a_mac_keeps_no_context_apart_and_holds_only_so_much(
    specs: dict[str, ModelSpec], name: str
) -> None:
    mac = hardware_named(name)
    plan = planned(specs["Qwen3.6-35B-A3B"], mac)
    gpu = plan.ledger.device("GPU0")
    assert "device context" not in [line.kind for line in gpu.lines]
    assert gpu.capacity_bytes is not None
    assert gpu.total_bytes <= gpu.capacity_bytes < mac.memory.available_bytes
    taken = sum(device.total_bytes for device in plan.ledger.devices)
    assert taken <= mac.memory.available_bytes
    giant = planned(specs["DeepSeek-V3"], mac)
    assert giant.fits is False
    short = next(f for f in giant.findings if f.code == "memory-short")
    assert "share" in (short.evidence or "")


def test_a_budget_on_a_mac_is_for_both(specs: dict[str, ModelSpec]) -> None:
    mac, budget = hardware_named("m4-max"), 8 * GIB
    plan = planned(specs["Qwen3-30B-A3B"], mac, Wishes(budget_bytes=budget))
    assert plan.fits is False
    small = planned(specs["SmolLM2-135M"], mac, Wishes(budget_bytes=budget))
    assert small.fits
    assert sum(device.total_bytes for device in small.ledger.devices) <= budget


def test_the_cards_of_a_pair_are_told_apart(specs: dict[str, ModelSpec]) -> None:
    plan = planned(specs["Mixtral-8x7B"], hardware_named("2 x rtx-3090"))
    assert plan.fits
    weights = [device.weights_bytes for device in plan.ledger.devices if device.device != "CPU"]
    assert max(weights) / min(weights) < 1.3


def test_a_trial_that_the_engine_confirmed_is_not_given_up(specs: dict[str, ModelSpec]) -> None:
    """An engine that asks for 3 GiB more with few expert layers on the host, and for none with
    many: the placement swings, and the one that fits is taken."""
    from moestro.planning.engine_memory import DeviceMemory, EngineMemory
    from moestro.planning.memory import ledger
    from moestro.planning.placement import place

    model, card = specs["Mixtral-8x7B"], hardware_named("rtx-4090")

    def engine(settings: Settings) -> EngineMemory:
        placement = place(model, settings, (24 << 30,))
        devices = ledger(model, settings, card, placement).devices
        more = 3 * GIB if settings.cpu_expert_layers < 12 else 0
        return EngineMemory(
            tuple(
                DeviceMemory(
                    d.device,
                    d.weights_bytes,
                    d.cache_bytes,
                    d.compute_bytes + (more if d.device != "CPU" else 0),
                )
                for d in devices
            )
        )

    planner = Planner(model, card, Wishes(), MachineSpeed(model, card), engine)
    assert make_plan(planner, with_alternatives=False).fits


@pytest.mark.parametrize(("context", "asked"), [(10_000_000, True), (1_000_000_000, False)])
def test_the_engine_is_not_asked_long_about_what_cannot_fit(
    specs: dict[str, ModelSpec], context: int, asked: bool
) -> None:
    """It writes something down for every token of a cache, even in a dry run."""
    model, card = specs["SmolLM2-135M"], hardware_named("rtx-4090")
    questions: list[int] = []

    def engine(settings: Settings) -> None:
        questions.append(settings.context)

    planner = Planner(model, card, Wishes(context=context), MachineSpeed(model, card), engine)
    trial, _ = planner.decide()
    assert not trial.fits
    assert not planner.exactly(trial.settings).fits
    assert questions == [context] * 2 * asked


def test_more_tokens_than_the_engine_counts(specs: dict[str, ModelSpec]) -> None:
    wishes = Wishes(context=1 << 30, parallel=4)
    plan = planned(specs["SmolLM2-135M"], hardware_named("rtx-4090"), wishes)
    assert "too-many-tokens" in codes(plan, Severity.FAIL)


def test_the_context_holds_the_described_request(specs: dict[str, ModelSpec]) -> None:
    card, model = hardware_named("rtx-4090"), specs["Qwen3-30B-A3B"]
    one_half = planned(model, card, Wishes(prompt_tokens=20_000))
    assert one_half.settings.context >= 20_000 + one_half.workload.output_tokens
    tight = Wishes(prompt_tokens=6000, output_tokens=1000, budget_bytes=int(19.5 * GIB))
    assert planned(model, card, tight).settings.context >= 7000
    for plan in (one_half, planned(model, card, tight)):
        assert "workload-beyond-context" not in codes(plan, Severity.WARN)


def test_what_was_not_measured_here_is_assumed(specs: dict[str, ModelSpec]) -> None:
    """The host's own rates lack the types of this file: its bandwidth still tells something."""
    here = replace(host(64), source="this machine")
    model = specs["Qwen3-30B-A3B"]
    own = {"CPU": measured_machine("F32", "Q8_0", threads=8)}
    planner = Planner(model, here, Wishes(), MachineSpeed(model, here, own))
    speed = make_plan(planner).speed
    assert speed is not None
    assert speed.decode.source == "assumed"
    known = {"CPU": measured_machine("F32", "Q4_K", "Q6_K", threads=8)}
    planner = Planner(model, here, Wishes(), MachineSpeed(model, here, known))
    speed = make_plan(planner).speed
    assert speed is not None
    assert speed.decode.source == "computed"


def test_blocks_move_to_the_gpu_that_has_room(specs: dict[str, ModelSpec]) -> None:
    """In proportion to memory the smaller card is 0.12 GiB short, and the larger one has room."""
    pair = hardware_named("rtx-4090, rtx-3060")
    plan = planned(specs["Mixtral-8x7B"], pair, Wishes(context=8192, parallel=4))
    assert plan.fits
    assert plan.settings.cpu_expert_layers == 0


def test_nothing_is_put_on_a_gpu_of_unknown_memory(specs: dict[str, ModelSpec]) -> None:
    card = hardware_named("rtx-4090")
    nameless = replace(card, gpus=(replace(card.gpus[0], memory_bytes=None, free_bytes=None),))
    plan = planned(specs["Mixtral-8x7B"], nameless)
    assert plan.ledger.device("GPU0").weights_bytes == 0
    assert plan.fits


def test_no_rate_is_above_the_ceiling(specs: dict[str, ModelSpec]) -> None:
    for name in ("Mixtral-8x7B", "DeepSeek-V3"):
        speed = planned(specs[name], hardware_named("rtx-4090")).speed
        assert speed is not None
        assert speed.decode_ceiling is not None
        assert speed.decode.low <= speed.decode.expected <= speed.decode.high
        assert speed.decode.high <= speed.decode_ceiling


def test_advice_begins_with_what_the_user_fixed(specs: dict[str, ModelSpec]) -> None:
    fixed = Wishes(gpu_layers=99, cpu_expert_layers=0)
    plan = planned(specs["Mixtral-8x7B"], hardware_named("rtx-4090"), fixed)
    finding = next(f for f in plan.findings if f.code == "memory-short")
    assert (finding.fix or "").startswith("Without --gpu-layers and --cpu-expert-layers")


def test_the_search_sees_what_earlier_runs_taught(specs: dict[str, ModelSpec]) -> None:
    model, here = specs["Qwen3-30B-A3B"], replace(host(64), source="this machine")
    slower = Residuals(tuple(("qwen3moe", "assumed", 0.5) for _ in range(50)))
    plain, taught = MachineSpeed(model, here), MachineSpeed(model, here, residuals=slower)
    plan = make_plan(Planner(model, here, Wishes(), taught))
    trial = Planner(model, here, Wishes(), taught).trial(plan.settings)
    assert trial.request_seconds == pytest.approx(plan.request_seconds)
    before = plain.request_seconds(plan.settings, trial.placement, trial.workload)
    assert before is not None
    assert trial.request_seconds is not None
    assert trial.request_seconds > 1.2 * before


def test_a_forecast_that_cannot_be_says_what_it_lacks(specs: dict[str, ModelSpec]) -> None:
    card = hardware_named("rtx-4090")
    unlinked = replace(card, gpus=(replace(card.gpus[0], link=None),))
    plan = planned(specs["Mixtral-8x7B"], unlinked)
    assert plan.speed is None
    assert plan.speed_missing == ("link",)


def test_the_plan_file_holds_what_speaks_against_the_model(specs: dict[str, ModelSpec]) -> None:
    damaged = Finding(Severity.FAIL, "tensor-missing", "A tensor is missing", None, None)
    model = replace(specs["SmolLM2-135M"], findings=(damaged,))
    data = planned(model, host(8)).to_json()
    assert "tensor-missing" in [finding["code"] for finding in data["findings"]]


def test_every_option_for_a_gpu_is_named_where_there_is_none(specs: dict[str, ModelSpec]) -> None:
    wishes = Wishes(gpu_layers=10, cpu_expert_layers=4, expert_cache_bytes=GIB)
    plan = planned(specs["Mixtral-8x7B"], host(64), wishes)
    finding = next(f for f in plan.findings if f.code == "no-gpu")
    for option in ("--gpu-layers", "--cpu-expert-layers", "--expert-cache"):
        assert option in finding.title
