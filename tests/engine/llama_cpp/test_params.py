from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import xllamacpp

from moestro.engine import EngineRequest
from moestro.engine.child import failure_of, request_from_json, request_to_json
from moestro.engine.llama_cpp.params import server_params
from moestro.errors import EngineError, EngineMismatch, EngineStartFailed
from moestro.planning import Settings
from moestro.planning.settings import CacheType
from moestro.units import MIB
from tests.tiny_models import write_tiny

TOO_MUCH = 99_999_999_999
SETTINGS = Settings(context=3000, parallel=3, threads=5)
REQUEST = EngineRequest(Path("a model.gguf"), "name", SETTINGS)


def build(*, accelerated: bool = False, projector: Path | None = None, **changes: object):
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    request = replace(REQUEST, settings=settings, projector=projector)
    return server_params(request, api_key="secret", accelerated=accelerated)


def test_what_is_asked_for_is_what_the_engine_is_told():
    params = build(cache_type_k="q8_0", cache_type_v="q4_0", ubatch=256, context_checkpoints=4)
    assert params.model.path == "a model.gguf"
    assert params.model_alias == {"name"}
    assert params.n_ctx == 9000
    assert params.n_parallel == 3
    assert params.kv_unified is False
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert params.cache_type_v == xllamacpp.ggml_type.GGML_TYPE_Q4_0
    assert params.n_ubatch == 256
    assert params.cpuparams.n_threads == 5
    assert params.cpuparams_batch.n_threads == 5
    assert params.n_ctx_checkpoints == 4


def test_it_listens_on_loopback_only_behind_a_key():
    params = build()
    assert params.hostnames == ["127.0.0.1"]
    assert params.port == 0
    assert params.api_keys == ["secret"]
    assert params.ui is False
    assert params.use_jinja is True


@pytest.mark.parametrize("name", get_args(CacheType))
def test_every_cache_type_exists_in_the_engine(name: str):
    assert build(cache_type_k=name).cache_type_k.name == f"GGML_TYPE_{name.upper()}"


@pytest.mark.parametrize(
    ("size_bytes", "mib"), [(0, 0), (1, 1), (64 * MIB, 64), (64 * MIB + 1, 65)]
)
def test_prompt_cache_is_bounded_and_off_by_default(size_bytes: int, mib: int):
    params = build(prompt_cache_bytes=size_bytes)
    assert params.cache_ram_mib == mib
    assert params.cache_idle_slots is (mib > 0)


def test_without_mtp_its_layers_are_not_loaded():
    params = build(mtp_depth=0)
    assert params.load_mtp is False
    assert params.speculative.types == [
        xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NONE
    ]


def test_with_mtp_they_draft():
    params = build(mtp_depth=2)
    assert params.load_mtp is True
    assert params.speculative.types == [
        xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP
    ]
    assert params.speculative.draft.n_max == 2


def test_a_rate_for_each_position_and_no_more():
    request = replace(
        REQUEST, settings=replace(SETTINGS, mtp_depth=2), synthetic_acceptance=(0.75, 0.5, 0.25)
    )
    params = server_params(request, api_key="secret", accelerated=False)
    assert params.speculative.synth_rates == [0.75, 0.5]


@pytest.mark.parametrize(
    ("accelerated", "gpu_layers", "fits", "told"),
    [(False, None, False, -1), (True, None, True, -1), (True, 7, False, 7), (False, 0, False, 0)],
)
def test_the_fitter_runs_only_where_it_has_a_choice(
    accelerated: bool, gpu_layers: int | None, fits: bool, told: int
):
    params = build(accelerated=accelerated, gpu_layers=gpu_layers)
    assert params.fit_params is fits
    assert params.n_gpu_layers == told


@pytest.mark.parametrize(
    ("accelerated", "ubatch", "parallel", "mtp_depth", "batch"),
    [
        (False, 512, 4, 0, 512),  # another stream waits for one micro-batch, not for four
        (True, 512, 4, 0, 2048),
        (True, 4096, 4, 0, 4096),
        (False, 2, 8, 0, 8),
        (False, 2, 8, 3, 32),
    ],
)
def test_batch(accelerated: bool, ubatch: int, parallel: int, mtp_depth: int, batch: int):
    params = build(accelerated=accelerated, ubatch=ubatch, parallel=parallel, mtp_depth=mtp_depth)
    assert params.n_batch == batch
    assert params.n_ubatch == ubatch


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"threads": 513}, "512 for --threads, not 513"),
        ({"ubatch": TOO_MUCH}, "--ubatch"),
        ({"gpu_layers": TOO_MUCH}, "--gpu-layers"),
        ({"context": 2**31 - 1, "parallel": 2}, "--context times --parallel, not 4,294,967,294"),
        ({"mtp_depth": TOO_MUCH}, "--mtp"),
        ({"mtp_depth": 2**30, "parallel": 2}, "--parallel times"),
        ({"prompt_cache_bytes": TOO_MUCH * MIB}, "prompt cache"),
        ({"context_checkpoints": TOO_MUCH}, "context checkpoints"),
    ],
)
def test_a_number_that_the_engine_cannot_hold_is_named(changes: dict[str, int], name: str):
    with pytest.raises(EngineStartFailed) as caught:
        build(**changes)
    assert name in caught.value.sentence
    assert caught.value.hint


def test_the_largest_numbers_are_taken():
    params = build(threads=512, ubatch=2**31 - 1, gpu_layers=2**31 - 1)
    assert params.cpuparams.n_threads == 512
    assert params.n_ubatch == params.n_gpu_layers == 2**31 - 1


@pytest.mark.parametrize("field", ["model", "projector", "name"])
def test_a_name_that_is_no_text(field: str):
    broken = "bad\udcff"
    request = replace(REQUEST, **{field: broken if field == "name" else Path(broken)})
    with pytest.raises(EngineStartFailed, match=r"“bad\\udcff” is not\."):
        server_params(request, api_key="secret", accelerated=False)


def test_projector():
    assert build(projector=Path("eyes.gguf")).mmproj.path == "eyes.gguf"
    assert build().mmproj.path == ""


def test_a_request_survives_the_pipe():
    request = replace(REQUEST, projector=Path("eyes.gguf"))
    assert request_from_json(request_to_json(request)) == request
    assert request_from_json(request_to_json(REQUEST)) == REQUEST


def test_a_file_name_that_is_no_text_survives_the_pipe():
    request = replace(REQUEST, model=Path("bad\udcff.gguf"), name="bad\udcff")
    line = json.dumps(request_to_json(request)).encode()
    assert request_from_json(json.loads(line)) == request


@pytest.mark.parametrize(
    "error",
    [
        EngineMismatch("Another release.", hint="Install it."),
        EngineStartFailed("Too much.", hint=None),
    ],
)
def test_an_error_survives_the_pipe(error: EngineError):
    again = failure_of(json.loads(json.dumps({"event": "failed", **error.to_json()})))
    assert type(again) is type(error)
    assert again.to_json() == error.to_json()


def test_placement(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moestro.engine.llama_cpp.params.read_model", lambda _path: None)
    monkeypatch.setattr("moestro.engine.llama_cpp.params.expert_blocks", lambda _model: [3, 4, 7])
    params = build(
        accelerated=True,
        gpu_layers=99,
        cpu_expert_layers=2,
        tensor_split=(3.0, 1.0),
        expert_cache_bytes=5 * MIB,
        cache_on_host=True,
        flash_attention="off",
    )
    first, second = params.tensor_buft_overrides.split(",")
    assert first == r"blk\.3\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
    assert second.startswith(r"blk\.4\.")
    assert params.tensor_split[:3] == [3.0, 1.0, 0.0]
    assert params.moe_cache_size == 5 * MIB
    assert params.no_kv_offload is True
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED


def test_a_host_without_gpus_is_told_nothing_of_them():
    params = build(cpu_expert_layers=2, tensor_split=(1.0, 1.0), expert_cache_bytes=MIB)
    assert params.tensor_buft_overrides == ""
    assert params.moe_cache_size == 0


def test_too_many_gpus():
    with pytest.raises(EngineStartFailed, match="at most 128"):
        build(accelerated=True, tensor_split=(1.0,) * 129)


@pytest.mark.parametrize(("thinking", "told"), [(None, -1), (True, 1), (False, 0)])
def test_thinking_is_switched_where_that_was_asked(thinking: bool | None, told: int):
    request = replace(REQUEST, thinking=thinking)
    again = request_from_json(request_to_json(request))
    assert server_params(again, api_key="k", accelerated=False).enable_reasoning == told


def test_embeddings_are_of_the_last_token_where_the_file_names_no_pooling(tmp_path: Path):
    request = replace(REQUEST, model=write_tiny("qwen35moe", tmp_path), embeddings=True)
    again = request_from_json(request_to_json(request))
    params = server_params(again, api_key="k", accelerated=False)
    assert params.embedding is True
    assert params.n_batch == params.n_ubatch
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    assert build().embedding is False
