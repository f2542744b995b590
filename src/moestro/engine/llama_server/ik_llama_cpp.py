"""The flags of ik_llama.cpp's server, which has llama.cpp's of 2024 and others of its own since.

What differs (common/common.cpp, examples/server): streams share one cache and each gets an equal
part of it, so there is nothing to choose there. Repacking is asked for, works in place and needs
the file read instead of mapped. Flash attention is on or off. One way to draft at a time, MTP
above all. Contexts are shifted unless told otherwise, which forgets the beginning of a
conversation in silence.
"""

from __future__ import annotations

from moestro.engine.llama_cpp.derived import host_tensors
from moestro.engine.llama_server.flags import MOST_THREADS, Asked, Flag, cannot, counted, shares
from moestro.errors import EngineStartFailed
from moestro.planning.settings import Family, Settings
from moestro.units import MIB

_FAMILY: Family = "ik_llama.cpp"
_ALL_LAYERS = "999"


def setting_flags(asked: Asked) -> tuple[Flag, ...]:
    error = _impossible(asked)
    if error is not None:
        raise error
    settings = asked.settings
    return (
        *_memory(settings, accelerated=asked.gpus > 0),
        *_loading(settings),
        *_placement(asked),
        *_speculation(settings),
    )


def serving_flags(host: str, port: int) -> tuple[Flag, ...]:
    return (
        ("--jinja", None),
        ("--host", host),
        ("--port", str(port)),
        ("--metrics", None),
        ("--webui", "none"),
        ("--no-context-shift", None),
        ("--log-disable", None),  # only a llama.log in the caller's folder; stderr says the same
    )


def _impossible(asked: Asked) -> EngineStartFailed | None:
    settings = asked.settings
    if settings.unified and settings.parallel > 1:
        return cannot(
            _FAMILY,
            "a cache whose every stream may take all of it (unified)",
            "Leave --unified out: each stream gets its equal part.",
        )
    if settings.expert_cache_bytes:
        return cannot(_FAMILY, "a cache for experts on the GPU", "Leave --expert-cache out.")
    if settings.mtp_depth and settings.ngram != "off":
        return cannot(_FAMILY, "drafts by MTP and from the text at once", "Use one of the two.")
    if settings.repack and settings.load_mode == "mmap":
        return cannot(
            _FAMILY,
            "repacking of a file that is mapped (load mode mmap)",
            "Give --no-repack too, or leave --load-mode out.",
        )
    if asked.synthetic_acceptance:
        return cannot(_FAMILY, "synthetic acceptance of drafts", "Use an engine of llama.cpp.")
    return None


def _memory(settings: Settings, *, accelerated: bool) -> tuple[Flag, ...]:
    prompt_cache_mib = -(-settings.prompt_cache_bytes // MIB)
    threads_batch = settings.threads_batch or settings.threads
    return (
        # The whole cache: the server shares it out among the streams.
        ("--ctx-size", _counted("context times parallel", settings.context * settings.parallel)),
        ("--parallel", str(settings.parallel)),
        ("--cache-type-k", settings.cache_type_k),
        ("--cache-type-v", settings.cache_type_v),
        ("--flash-attn", settings.flash_attention),
        ("--batch-size", _counted("batch", settings.tokens_at_once(accelerated=accelerated))),
        ("--ubatch-size", str(settings.ubatch)),
        ("--cache-ram", _counted("prompt cache in MiB", prompt_cache_mib)),
        ("--ctx-checkpoints", str(settings.context_checkpoints)),
        ("--threads", counted(_FAMILY, "number of threads", settings.threads, MOST_THREADS)),
        ("--threads-batch", counted(_FAMILY, "number of threads", threads_batch, MOST_THREADS)),
    )


def _loading(settings: Settings) -> tuple[Flag, ...]:
    found: list[Flag] = []
    if settings.repack:
        found.append(("--run-time-repack", None))  # which reads the file, too
    elif settings.load_mode in ("none", "mlock"):
        found.append(("--no-mmap", None))
    if settings.load_mode == "mlock":
        found.append(("--mlock", None))
    return tuple(found)


def _placement(asked: Asked) -> tuple[Flag, ...]:
    settings = asked.settings
    if not asked.gpus:
        return (("--gpu-layers", "0"),)
    layers = _ALL_LAYERS if settings.gpu_layers is None else str(settings.gpu_layers)
    found: list[Flag] = [("--gpu-layers", layers)]
    if settings.cache_on_host:
        found.append(("--no-kv-offload", None))
    if settings.tensor_split is not None:
        found.append(("--split-mode", "layer"))
        found.append(("--tensor-split", ",".join(shares(settings.tensor_split))))
    if blocks := asked.host_blocks:
        rules = ",".join(f"{rule}=CPU" for rule in host_tensors(blocks))
        found.append(("--override-tensor", rules))
    return tuple(found)


def _speculation(settings: Settings) -> tuple[Flag, ...]:
    if settings.mtp_depth:
        return (
            ("--multi-token-prediction", None),
            ("--draft-max", str(settings.mtp_depth)),
            ("--draft-p-min", f"{settings.mtp_p_min:g}"),
        )
    if settings.ngram != "off":
        return (("--spec-type", f"ngram-{settings.ngram}"),)
    return ()


def _counted(what: str, number: int) -> str:
    return counted(_FAMILY, what, number)
