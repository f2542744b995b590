"""A request in moestro's words → the engine's own parameters."""

from __future__ import annotations

import xllamacpp

from moestro.engine.protocol import EngineRequest
from moestro.errors import EngineStartFailed
from moestro.planning import Settings
from moestro.units import MIB

_LOOPBACK = "127.0.0.1"

_MOST = 2**31 - 1
"""The engine counts in 32 bits with a sign."""

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


def _check_numbers(settings: Settings) -> None:
    tokens = settings.context * settings.parallel
    for name, value, most in (
        ("--threads", settings.threads, _MOST_THREADS),
        ("--parallel", settings.parallel, _MOST),
        ("--context times --parallel", tokens, _MOST),
        ("--ubatch", settings.ubatch, _MOST),
        ("--gpu-layers", settings.gpu_layers or 0, _MOST),
        ("--mtp", settings.mtp_depth, _MOST),
        ("--parallel times (1 + --mtp)", _outputs(settings), _MOST),
        ("the prompt cache in MiB", _prompt_cache_mib(settings), _MOST),
        ("the number of context checkpoints", settings.context_checkpoints, _MOST),
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


def _outputs(settings: Settings) -> int:
    """One next token of every stream, drafts included."""
    return settings.parallel * (1 + settings.mtp_depth)


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

    params.n_ubatch = settings.ubatch
    # A stream's next token waits for the whole batch that holds another stream's prompt. On a CPU
    # one of 2048 tokens takes seconds and is no faster than its parts; several GPUs need it whole.
    # Below one output of every stream, drafts included, the engine ends on a failed assertion.
    params.n_batch = max(2048 if accelerated else 0, settings.ubatch, _outputs(settings))

    if settings.gpu_layers is not None:
        params.n_gpu_layers = settings.gpu_layers
    # The fitter reads the header once more, for nothing where there is nothing to choose.
    params.fit_params = accelerated and settings.gpu_layers is None

    params.cache_ram_mib = _prompt_cache_mib(settings)  # 0 switches it off
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
