"""A request in moestro's words → the engine's own parameters."""

from __future__ import annotations

import xllamacpp

from moestro.engine.protocol import EngineRequest
from moestro.planning import Settings
from moestro.units import MIB

_LOOPBACK = "127.0.0.1"


def server_params(
    request: EngineRequest, *, api_key: str, accelerated: bool
) -> xllamacpp.CommonParams:
    """Parameters of a server that listens on a free loopback port and keeps what was asked.

    `accelerated` says whether the engine sees a device besides the CPU.
    """
    settings = request.settings
    params = xllamacpp.CommonParams()
    params.model.path = str(request.model)
    params.model_alias = [request.name]
    if request.projector is not None:
        params.mmproj.path = str(request.projector)

    _set_memory(params, settings, accelerated)
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    _set_speculation(params, settings)

    params.hostnames = [_LOOPBACK]
    params.port = 0  # the system picks a free one, so there is no race for it
    params.api_keys = [api_key]
    params.use_jinja = True
    params.ui = False
    params.endpoint_metrics = True
    params.endpoint_slots = True
    return params


def _set_memory(params: xllamacpp.CommonParams, settings: Settings, accelerated: bool) -> None:
    # The engine splits n_ctx evenly among the streams and rounds each share up to 256 tokens. An
    # n_ctx above zero is never changed by its fitter.
    params.n_ctx = settings.context * settings.parallel
    params.n_parallel = settings.parallel
    params.kv_unified = settings.unified
    params.cache_type_k = _cache_type(settings.cache_type_k)
    params.cache_type_v = _cache_type(settings.cache_type_v)

    params.n_ubatch = settings.ubatch
    # A stream's next token waits for the whole batch that holds another stream's prompt. On a CPU
    # one of 2048 tokens takes seconds and is no faster than its parts; several GPUs need it whole.
    # Below one output of every stream, drafts included, the engine ends on a failed assertion.
    outputs = settings.parallel * (1 + settings.mtp_depth)
    params.n_batch = max(2048 if accelerated else 0, settings.ubatch, outputs)

    if settings.gpu_layers is not None:
        params.n_gpu_layers = settings.gpu_layers
    # The fitter reads the header once more, for nothing where there is nothing to choose.
    params.fit_params = accelerated and settings.gpu_layers is None

    params.cache_ram_mib = -(-settings.prompt_cache_bytes // MIB)  # 0 switches it off
    params.cache_idle_slots = settings.prompt_cache_bytes > 0
    params.n_ctx_checkpoints = settings.context_checkpoints


def _set_speculation(params: xllamacpp.CommonParams, settings: Settings) -> None:
    if settings.mtp_depth <= 0:
        return
    params.load_mtp = True
    params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
    params.speculative.draft.n_max = settings.mtp_depth


def _cache_type(name: str) -> xllamacpp.ggml_type:
    return xllamacpp.ggml_type[f"GGML_TYPE_{name.upper()}"]
