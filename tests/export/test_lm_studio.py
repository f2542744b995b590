from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments
from moestro.export.lm_studio import export
from tests.export import golden
from tests.export.changes import EVERY, base, forgets
from tests.export.plans import GOLDEN, deployment, with_file, with_settings

KEYS: dict[str, type | tuple[type, ...]] = {
    "llm.load.contextLength": int,
    "llm.load.numParallelSessions": int,
    "llm.load.useUnifiedKvCache": bool,
    "llm.load.offloadKVCacheToGpu": bool,
    "llm.load.numCpuExpertLayersRatio": (float, str),
    "llm.load.llama.autoFit": bool,
    "llm.load.llama.acceleration.offloadRatio": (float, str),
    "llm.load.llama.cpuThreadPoolSize": int,
    "llm.load.llama.evalBatchSize": int,
    "llm.load.llama.physicalBatchSize": int,
    "llm.load.llama.flashAttention": bool,
    "llm.load.llama.contextCheckpoints": int,
    "llm.load.llama.kCacheQuantizationType": dict,
    "llm.load.llama.vCacheQuantizationType": dict,
    "llm.load.llama.speculativeDecoding.draftMtp": bool,
    "llm.load.llama.speculativeDecoding.draftMaxTokens": int,
    "llm.load.llama.argumentsOverride": dict,
    "load.gpuSplitConfig": dict,
    "llm.prediction.llama.cpuThreads": int,
}
"""As in the schematics of `@lmstudio/sdk` 2.0.0: bench/export/lm_studio_schema.cjs reads them."""


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("lm-studio", name, export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(export, setting)


def fields(case: Deployment) -> dict[str, Any]:
    content = json.loads(export(case).files[0].text)
    assert list(content) == ["preset", "operation", "load"]
    both = [*content["operation"]["fields"], *content["load"]["fields"]]
    found = {field["key"]: field["value"] for field in both}
    assert len(found) == len(both)
    for key, value in found.items():
        assert isinstance(value, KEYS[key]), key
    return found


def override(case: Deployment) -> list[str]:
    """The words that are appended to the command line."""
    value = fields(case)["llm.load.llama.argumentsOverride"]
    assert value["enabled"] is True
    pairs = [(one["key"], one["value"]) for one in value["overrideParameters"]]
    return [word for pair in pairs for word in pair if word]


def test_flags_that_are_appended_are_the_servers() -> None:
    case = with_settings(base(), replace(base().settings, cpu_expert_layers=3))
    words = override(case)
    everything = " ".join(server_arguments(case))
    assert "--n-cpu-moe 3" in " ".join(words)
    position = 0
    for word in words:
        position = everything.index(word, position)  # in the same order, and nothing besides
    assert "--model" not in words


def test_shares_of_layers() -> None:
    def shares(**change: Any) -> tuple[Any, Any]:
        found = fields(with_settings(base(), replace(base().settings, **change)))
        return (
            found["llm.load.llama.acceleration.offloadRatio"],
            found["llm.load.numCpuExpertLayersRatio"],
        )

    every = base().plan.model.block_count + 1
    assert shares(gpu_layers=None) == shares(gpu_layers=every) == ("max", "off")
    assert shares(gpu_layers=0)[0] == "off"
    share, experts = shares(gpu_layers=7, cpu_expert_layers=5)
    assert round(share * every) == 7
    assert round(experts * (every - 1)) == 5
    assert shares(cpu_expert_layers=every)[1] == "max"


def test_the_cache() -> None:
    case = base()
    alone = fields(case)
    assert alone["llm.load.contextLength"] == case.settings.context
    shared = fields(with_settings(case, replace(case.settings, unified=True)))
    assert shared["llm.load.contextLength"] == case.settings.context * case.settings.parallel
    other = with_settings(case, replace(case.settings, cache_type_k="q8_0", cache_type_v="bf16"))
    found = fields(other)
    assert found["llm.load.llama.kCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert found["llm.load.llama.vCacheQuantizationType"] == {"checked": False, "value": "f16"}
    assert "--cache-type-v bf16" in " ".join(override(other))
    assert "cache_type_v" in {one.setting for one in export(other).unexpressed}


def test_what_lm_studio_does_otherwise() -> None:
    case = base()
    model = replace(case.plan.model, projector="/srv/mmproj.gguf")
    settings = replace(
        case.settings, gpu_layers=7, cpu_expert_layers=2, expert_cache_bytes=1 << 30, parallel=2000
    )
    case = replace(case, plan=replace(case.plan, model=model, settings=settings), host="0.0.0.0")
    assert [one.setting for one in export(case).unexpressed] == [
        "projector",
        "gpu_layers",
        "cpu_expert_layers",
        "flash_attention",
        "prompt_cache_bytes",
        "expert_cache_bytes",
        "parallel",
        "host",
    ]
    assert fields(case)["llm.load.numParallelSessions"] == 1023


def test_the_file_is_called_after_the_models() -> None:
    named = export(with_file(base(), "https://h/x.gguf?download=true")).files[0].name
    assert named == "x.gguf.json"
    assert export(with_file(base(), "C:\\m\\x.gguf")).files[0].name == "x.gguf.json"


def test_the_last_flag_wins_so_none_is_doubled() -> None:
    words = [word for word in override(deployment("two-gpus")) if word.startswith("--")]
    assert len(words) == len(set(words))
