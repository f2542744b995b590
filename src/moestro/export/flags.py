"""Settings → llama-server's flags: the one place that knows them.

They say what `engine/llama_cpp/params.py` sets for the embedded engine, which is the same program:
a server with these flags gets the same parameters (`tests/export/test_round_trip.py`). Whatever the
plan decided is said even where it is llama-server's own default, because a default may change, and
may be changed behind a command line by `LLAMA_ARG_…` variables and `llama.cpp/config.ini`.
"""

from __future__ import annotations

import struct

from moestro.engine.llama_cpp import derived
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.errors import ModelUnsupported, NotAPlan
from moestro.export.deployment import Deployment
from moestro.export.location import is_address, is_safetensors
from moestro.export.target import Unexpressed
from moestro.planning.settings import INT_MAX, Settings
from moestro.units import MIB, format_bytes

PROGRAM = "llama-server"
RELEASE = f"b{EXPECTED_VERSION.rpartition('.')[2]}"
"""Of llama.cpp: the one that these flags were checked with, and that moestro embeds."""

Flag = tuple[str, str | None]
"""A flag's long name and its value; None where it takes none."""

CORS: Flag = ("--cors-origins", "localhost")

_MOST_THREADS = 512
"""`GGML_MAX_N_THREADS`; thousands end in a crash."""


def server_arguments(
    deployment: Deployment,
    *,
    model_path: str | None = None,
    projector_path: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> list[str]:
    """llama-server's arguments, without the program. What is None is as the deployment says."""
    found = flags(
        deployment, model_path=model_path, projector_path=projector_path, host=host, port=port
    )
    return [part for name, value in found for part in (name, value) if part is not None]


def flags(
    deployment: Deployment,
    *,
    model_path: str | None = None,
    projector_path: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> tuple[Flag, ...]:
    """The same as pairs, in the order in which people read them.

    Raises:
        ModelUnsupported: not a GGUF, which is all that llama.cpp runs.
        NotAPlan: a number that llama.cpp cannot count.
    """
    if is_safetensors(deployment.model_path):
        raise ModelUnsupported(
            "This plan is for safetensors, and llama.cpp runs GGUF files.",
            hint="Plan a GGUF of the model, or export to vllm.",
        )
    settings = deployment.settings
    return (
        *_files(deployment, model_path, projector_path),
        ("--alias", alias(deployment)),
        *_memory(settings, accelerated=deployment.gpus > 0),
        *_placement(deployment),
        *_speculation(settings),
        ("--jinja", None),
        ("--host", host or deployment.host),
        ("--port", str(deployment.port if port is None else port)),
        # Its own default lets every web page that this machine's user visits read its answers.
        CORS,
        ("--metrics", None),
        ("--no-ui", None),
    )


def unexpressed(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """What no flag of llama-server says as the plan does."""
    found = []
    settings = deployment.settings
    if deployment.gpus and (rest := settings.expert_cache_bytes % MIB):
        mib = settings.expert_cache_bytes // MIB
        found.append(
            Unexpressed(
                "expert_cache_bytes",
                f"{settings.expert_cache_bytes:,} bytes",
                f"llama-server counts it in whole MiB: it gets {mib:,} MiB, "
                f"{format_bytes(rest)} less.",
            )
        )
    if alias(deployment) != deployment.name:
        found.append(
            Unexpressed(
                "name",
                deployment.name,
                "llama-server reads a comma as the end of a name: clients call it "
                f"{alias(deployment)}.",
            )
        )
    return tuple(found)


def alias(deployment: Deployment) -> str:
    """What clients call the model: `--alias` is a list separated by commas, without quoting."""
    return deployment.name.replace(",", "_").strip() or "model"


def host_expert_blocks(deployment: Deployment) -> tuple[int, ...]:
    """The blocks whose routed experts stay in main memory, in order."""
    if not deployment.gpus:
        return ()
    return deployment.plan.model.expert_blocks[: deployment.settings.cpu_expert_layers]


def _files(
    deployment: Deployment, model_path: str | None, projector_path: str | None
) -> tuple[Flag, ...]:
    model = model_path or deployment.model_path
    projector = projector_path or deployment.plan.model.projector
    found: list[Flag] = [("--model-url" if is_address(model) else "--model", model)]
    if projector is not None:
        found.append(("--mmproj-url" if is_address(projector) else "--mmproj", projector))
    return tuple(found)


def _memory(settings: Settings, *, accelerated: bool) -> tuple[Flag, ...]:
    prompt_cache_mib = -(-settings.prompt_cache_bytes // MIB)
    threads = _counted("number of threads", settings.threads, _MOST_THREADS)
    return (
        # The whole cache: the server shares it out among the streams.
        ("--ctx-size", _counted("context times parallel", settings.context * settings.parallel)),
        ("--parallel", str(settings.parallel)),
        ("--kv-unified" if settings.unified else "--no-kv-unified", None),
        ("--cache-type-k", settings.cache_type_k),
        ("--cache-type-v", settings.cache_type_v),
        ("--flash-attn", settings.flash_attention),
        ("--batch-size", _counted("batch", derived.batch(settings, accelerated=accelerated))),
        ("--ubatch-size", str(settings.ubatch)),
        ("--cache-ram", _counted("prompt cache in MiB", prompt_cache_mib)),
        ("--cache-idle-slots" if prompt_cache_mib else "--no-cache-idle-slots", None),
        ("--ctx-checkpoints", str(settings.context_checkpoints)),
        ("--threads", threads),
        ("--threads-batch", threads),
    )


def _placement(deployment: Deployment) -> tuple[Flag, ...]:
    settings = deployment.settings
    # Without `--fit off` the server lowers what it thinks does not fit.
    offload: Flag = ("--kv-offload" if not settings.cache_on_host else "--no-kv-offload", None)
    if not deployment.gpus:
        # A card that the plan knows nothing of stays out of it.
        return (("--device", "none"), ("--gpu-layers", "0"), ("--fit", "off"), offload)
    layers = "all" if settings.gpu_layers is None else str(settings.gpu_layers)
    found: list[Flag] = [("--gpu-layers", layers), ("--fit", "off"), offload]
    if settings.tensor_split is not None:
        found.append(("--split-mode", "layer"))
        found.append(("--tensor-split", ",".join(_shares(settings.tensor_split))))
    if blocks := host_expert_blocks(deployment):
        # It counts blocks of any kind, so it has to reach to the last of ours. Those without
        # experts below have no tensor that its pattern names: nothing else of them moves.
        found.append(("--n-cpu-moe", str(blocks[-1] + 1)))
    if settings.expert_cache_bytes >= MIB:
        mib = settings.expert_cache_bytes // MIB
        found.append(("--moe-cache-mib", _counted("expert cache in MiB", mib)))
    return tuple(found)


def _speculation(settings: Settings) -> tuple[Flag, ...]:
    if not settings.mtp_depth:
        return ()
    return (("--spec-type", "draft-mtp"), ("--spec-draft-n-max", str(settings.mtp_depth)))


def _counted(what: str, number: int, most: int = INT_MAX) -> str:
    if number > most:
        raise NotAPlan(
            f"The plan's {what} is {number:,}, and llama.cpp counts to {most:,}.",
            hint="Make a smaller plan: moestro plan MODEL --context N --parallel N --threads N",
        )
    return str(number)


_LEAST_SHARE, _MOST_SHARE = 1e-30, 1e30


def _shares(split: tuple[float, ...]) -> list[str]:
    """Each share in the fewest digits that are the same number in single precision, which is what
    the server keeps. Beyond its range only the ratios are kept."""
    largest = max(split)
    if largest > _MOST_SHARE or 0 < largest < _LEAST_SHARE:
        split = tuple(share / largest for share in split)
    return [_single(0.0 if share < _LEAST_SHARE else share) for share in split]


def _single(share: float) -> str:
    wanted = struct.pack("f", share)
    texts = (f"{share:.{digits}g}" for digits in range(1, 10))
    return next((text for text in texts if struct.pack("f", float(text)) == wanted), repr(share))
