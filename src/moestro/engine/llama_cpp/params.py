"""A request in moestro's words → the engine's own parameters."""

from __future__ import annotations

from pathlib import Path

import xllamacpp

from moestro.engine.llama_cpp import derived
from moestro.engine.pooling import names_pooling
from moestro.engine.protocol import EngineRequest
from moestro.errors import EngineStartFailed
from moestro.model import read_model
from moestro.planning.placement import expert_blocks
from moestro.planning.settings import INT_MAX, Settings
from moestro.units import MIB

_LOOPBACK = "127.0.0.1"
_FLASH_ATTENTION = {
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}

VERBOSITY = 4
"""llama.cpp's "trace": some lines a request, none a token, and nothing of what is said."""

_LOAD_MODES = {
    "auto": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_AUTO,
    "none": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE,
    "mmap": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP,
    "mlock": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MLOCK,
}
_NGRAMS = {
    "simple": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE,
    "map-k": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K,
    "map-k4v": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K4V,
    "mod": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MOD,
    "cache": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_CACHE,
}

_MOST_GPUS = 128
"""`LLAMA_MAX_DEVICES` of the parameters' `tensor_split`."""

_MOST_THREADS = 512
"""`GGML_MAX_N_THREADS`; thousands end in a crash or in "Thread creation failed"."""


def server_params(
    request: EngineRequest, *, api_key: str, accelerated: bool
) -> xllamacpp.CommonParams:
    """Parameters of a server that listens on a free loopback port and keeps what was asked.

    `accelerated` says whether the engine sees a device besides the CPU.

    Raises:
        EngineStartFailed: a number or a name that the engine's parameters cannot hold.
    """
    settings = request.settings
    _check_numbers(settings)
    for text in (str(request.model), str(request.projector or ""), request.name):
        _check_text(text)
    params = xllamacpp.CommonParams()
    params.model.path = str(request.model)
    params.model_alias = [request.name]
    if request.projector is not None:
        params.mmproj.path = str(request.projector)

    _set_memory(params, settings, accelerated)
    _set_placement(params, request, accelerated)
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads_batch or settings.threads
    params.no_extra_bufts = not settings.repack
    params.load_mode = _LOAD_MODES[settings.load_mode]
    _set_speculation(params, settings, request.synthetic_acceptance)

    params.hostnames = [_LOOPBACK]
    params.port = 0  # the system picks a free one, so there is no race for it
    params.api_keys = [api_key]
    if request.verbose:
        params.verbosity = VERBOSITY
    if request.embeddings:
        _set_embeddings(params, request.model)
    if request.thinking is not None:
        params.enable_reasoning = int(request.thinking)
    params.use_jinja = True
    params.ui = False
    params.endpoint_metrics = True
    params.endpoint_slots = True
    return params


def _check_numbers(settings: Settings) -> None:
    tokens = settings.context * settings.parallel
    for name, value, most in (
        ("--threads", settings.threads, _MOST_THREADS),
        ("--threads-batch", settings.threads_batch or 0, _MOST_THREADS),
        ("--batch", settings.batch or 0, INT_MAX),
        ("--parallel", settings.parallel, INT_MAX),
        ("--context times --parallel", tokens, INT_MAX),
        ("--ubatch", settings.ubatch, INT_MAX),
        ("--gpu-layers", settings.gpu_layers or 0, INT_MAX),
        ("--mtp", settings.mtp_depth, INT_MAX),
        ("--parallel times the drafts", settings.outputs, INT_MAX),
        ("the number of GPUs in a split", len(settings.tensor_split or ()), _MOST_GPUS),
        ("the prompt cache in MiB", _prompt_cache_mib(settings), INT_MAX),
        ("the number of context checkpoints", settings.context_checkpoints, INT_MAX),
    ):
        if value > most:
            raise EngineStartFailed(
                f"The engine takes at most {most:,} for {name}, not {value:,}.",
                hint="Lower it, or leave it out to have it chosen.",
            )


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="backslashreplace").decode()
        raise EngineStartFailed(
            f"The engine takes only names in UTF-8, which “{shown}” is not.",
            hint="Rename the file or its folder, or make a symbolic link with a plain name.",
        ) from error


def _prompt_cache_mib(settings: Settings) -> int:
    return -(-settings.prompt_cache_bytes // MIB)


def _set_memory(params: xllamacpp.CommonParams, settings: Settings, accelerated: bool) -> None:
    # The engine splits n_ctx evenly among the streams and rounds each share up to 256 tokens. An
    # n_ctx above zero is never changed by its fitter.
    params.n_ctx = settings.context * settings.parallel
    params.n_parallel = settings.parallel
    params.kv_unified = settings.unified
    params.cache_type_k = _cache_type(settings.cache_type_k)
    params.cache_type_v = _cache_type(settings.cache_type_v)

    params.flash_attn_type = _FLASH_ATTENTION[settings.flash_attention]

    params.n_ubatch = settings.ubatch
    params.n_batch = settings.tokens_at_once(accelerated=accelerated)

    params.cache_ram_mib = _prompt_cache_mib(settings)  # 0 switches it off
    params.cache_idle_slots = settings.prompt_cache_bytes > 0
    params.n_ctx_checkpoints = settings.context_checkpoints


def _set_placement(
    params: xllamacpp.CommonParams, request: EngineRequest, accelerated: bool
) -> None:
    settings = request.settings
    if settings.gpu_layers is not None:
        params.n_gpu_layers = settings.gpu_layers
    # The fitter reads the header once more, for nothing where there is nothing to choose.
    params.fit_params = accelerated and settings.gpu_layers is None
    params.no_kv_offload = settings.cache_on_host
    if not accelerated:
        return
    if settings.tensor_split is not None:
        rest = [0.0] * (_MOST_GPUS - len(settings.tensor_split))
        params.tensor_split = [*settings.tensor_split, *rest]
    if settings.cpu_expert_layers:
        blocks = expert_blocks(read_model(request.model))[: settings.cpu_expert_layers]
        rules = derived.host_tensors(blocks)
        params.tensor_buft_overrides = ",".join(f"{rule}=CPU" for rule in rules)
    params.moe_cache_size = settings.expert_cache_bytes


def _set_speculation(
    params: xllamacpp.CommonParams, settings: Settings, synthetic: tuple[float, ...]
) -> None:
    types = []
    if settings.ngram != "off":  # what costs least to draft comes first
        types.append(_NGRAMS[settings.ngram])
    if settings.mtp_depth > 0:
        params.load_mtp = True
        types.append(xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP)
        params.speculative.draft.n_max = settings.mtp_depth
        params.speculative.draft.p_min = settings.mtp_p_min
    if types:
        params.speculative.types = types
        params.speculative.synth_rates = list(synthetic[: settings.mtp_depth])


def _set_embeddings(params: xllamacpp.CommonParams, model: Path) -> None:
    params.embedding = True
    params.n_batch = params.n_ubatch  # pooling over all tokens needs them in one step
    if not names_pooling(model):  # then the engine would pool nothing
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST


def _cache_type(name: str) -> xllamacpp.ggml_type:
    return xllamacpp.ggml_type[f"GGML_TYPE_{name.upper()}"]
