"""The flags of llama.cpp's own server, as of the release that moestro embeds."""

from __future__ import annotations

from moestro.engine.llama_server.flags import MOST_THREADS, Asked, Flag, counted, shares
from moestro.planning.settings import Family, Settings
from moestro.units import MIB

_FAMILY: Family = "llama.cpp"
CORS: Flag = ("--cors-origins", "localhost")


def setting_flags(asked: Asked) -> tuple[Flag, ...]:
    settings = asked.settings
    return (
        *_memory(settings, accelerated=asked.gpus > 0),
        *_placement(asked),
        *_speculation(settings, asked.synthetic_acceptance),
    )


def serving_flags(host: str, port: int) -> tuple[Flag, ...]:
    return (
        ("--jinja", None),
        ("--host", host),
        ("--port", str(port)),
        # Its own default lets every web page that this machine's user visits read its answers.
        CORS,
        ("--metrics", None),
        ("--no-ui", None),
    )


def _memory(settings: Settings, *, accelerated: bool) -> tuple[Flag, ...]:
    prompt_cache_mib = -(-settings.prompt_cache_bytes // MIB)
    threads_batch = settings.threads_batch or settings.threads
    return (
        # The whole cache: the server shares it out among the streams.
        ("--ctx-size", _counted("context times parallel", settings.context * settings.parallel)),
        ("--parallel", str(settings.parallel)),
        ("--kv-unified" if settings.unified else "--no-kv-unified", None),
        ("--cache-type-k", settings.cache_type_k),
        ("--cache-type-v", settings.cache_type_v),
        ("--flash-attn", settings.flash_attention),
        ("--batch-size", _counted("batch", settings.tokens_at_once(accelerated=accelerated))),
        ("--ubatch-size", str(settings.ubatch)),
        ("--cache-ram", _counted("prompt cache in MiB", prompt_cache_mib)),
        ("--cache-idle-slots" if prompt_cache_mib else "--no-cache-idle-slots", None),
        ("--ctx-checkpoints", str(settings.context_checkpoints)),
        ("--threads", _counted("number of threads", settings.threads, MOST_THREADS)),
        ("--threads-batch", _counted("number of threads", threads_batch, MOST_THREADS)),
        ("--repack" if settings.repack else "--no-repack", None),
        ("--load-mode", settings.load_mode),
    )


def _placement(asked: Asked) -> tuple[Flag, ...]:
    settings = asked.settings
    # Without `--fit off` the server lowers what it thinks does not fit.
    offload: Flag = ("--kv-offload" if not settings.cache_on_host else "--no-kv-offload", None)
    if not asked.gpus:
        # A card that the plan knows nothing of stays out of it.
        return (("--device", "none"), ("--gpu-layers", "0"), ("--fit", "off"), offload)
    layers = "all" if settings.gpu_layers is None else str(settings.gpu_layers)
    found: list[Flag] = [("--gpu-layers", layers), ("--fit", "off"), offload]
    if settings.tensor_split is not None:
        found.append(("--split-mode", "layer"))
        found.append(("--tensor-split", ",".join(shares(settings.tensor_split))))
    if blocks := asked.host_blocks:
        # It counts blocks of any kind, so it has to reach to the last of ours. Those without
        # experts below have no tensor that its pattern names: nothing else of them moves.
        found.append(("--n-cpu-moe", str(blocks[-1] + 1)))
    if settings.expert_cache_bytes >= MIB:
        mib = settings.expert_cache_bytes // MIB
        found.append(("--moe-cache-mib", _counted("expert cache in MiB", mib)))
    return tuple(found)


def _speculation(settings: Settings, synthetic: tuple[float, ...]) -> tuple[Flag, ...]:
    kinds = [] if settings.ngram == "off" else [f"ngram-{settings.ngram}"]
    found: list[Flag] = []
    if settings.mtp_depth:
        kinds.append("draft-mtp")
        found.append(("--spec-draft-n-max", str(settings.mtp_depth)))
        found.append(("--spec-draft-p-min", f"{settings.mtp_p_min:g}"))
    if not kinds:
        return ()
    rates = synthetic[: settings.mtp_depth]
    if rates:
        found.append(("--spec-synth-rates", ",".join(f"{rate:g}" for rate in rates)))
    return (("--spec-type", ",".join(kinds)), *found)


def _counted(what: str, number: int, most: int | None = None) -> str:
    return counted(_FAMILY, what, number) if most is None else counted(_FAMILY, what, number, most)
