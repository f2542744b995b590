"""A deployment in llama-server's flags. The flags themselves are `engine/llama_server`'s.

A server with these flags gets the same parameters as the embedded engine
(`tests/export/test_round_trip.py`).

A plan may be for another engine than the embedded one. Where the target starts a program of this
machine, that is the plan's own, in its family's dialect: the other settings were chosen for it.
Where the target brings a llama.cpp with it (an image, a router, a desktop program), the flags are
llama.cpp's, and `unexpressed` says so.
"""

from __future__ import annotations

from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.engine.llama_server.dialects import DIALECTS
from moestro.engine.llama_server.flags import Asked, Flag, words
from moestro.engine.llama_server.flags import alias as alias_of
from moestro.errors import EngineStartFailed, ModelUnsupported, NotAPlan
from moestro.export.deployment import Deployment
from moestro.export.location import is_address, is_safetensors
from moestro.export.target import Unexpressed
from moestro.planning.settings import EMBEDDED, Family
from moestro.units import MIB, format_bytes

PROGRAM = "llama-server"
RELEASE = f"b{EXPECTED_VERSION.rpartition('.')[2]}"
"""Of llama.cpp: the one that these flags were checked with, and that moestro embeds."""


def server_arguments(
    deployment: Deployment,
    *,
    model_path: str | None = None,
    projector_path: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> list[str]:
    """llama.cpp's own server's arguments, without the program. What is None is as the deployment
    says."""
    return words(
        flags(
            deployment, model_path=model_path, projector_path=projector_path, host=host, port=port
        )
    )


def flags(
    deployment: Deployment,
    *,
    family: Family = "llama.cpp",
    model_path: str | None = None,
    projector_path: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> tuple[Flag, ...]:
    """The same as pairs, in the order in which people read them, in the words of `family`.

    Raises:
        ModelUnsupported: not a GGUF, which is all that llama.cpp runs.
        NotAPlan: a number that llama.cpp cannot count, or a setting that the family cannot do.
    """
    if is_safetensors(deployment.model_path):
        raise ModelUnsupported(
            "This plan is for safetensors, and llama.cpp runs GGUF files.",
            hint="Plan a GGUF of the model, or export to vllm.",
        )
    dialect = DIALECTS[family]
    blocks = deployment.plan.model.expert_blocks
    try:
        settings = dialect.setting_flags(Asked(deployment.settings, deployment.gpus, blocks))
    except EngineStartFailed as error:
        raise NotAPlan(
            error.sentence,
            hint="Make another plan: moestro plan MODEL --context N --parallel N --threads N",
        ) from error
    return (
        *_files(deployment, model_path, projector_path),
        ("--alias", alias(deployment)),
        *settings,
        *dialect.serving_flags(host or deployment.host, deployment.port if port is None else port),
    )


def program(deployment: Deployment) -> str:
    """The server to start, where a target may start any: the plan's own, as far as it has a path.
    Otherwise the one on the PATH."""
    return deployment.program or PROGRAM


def release(deployment: Deployment) -> str:
    """Whose server the flags are for."""
    engine = deployment.engine
    if engine.id == EMBEDDED:
        return f"llama.cpp {RELEASE}"
    return f"{engine.family} {engine.version or 'of the engine ' + engine.id}"


def unexpressed(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """What no flag says as the plan does."""
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


def nameless_engine(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """For targets that start a program: said where the plan's engine has no path."""
    engine = deployment.engine
    if engine.id == EMBEDDED or deployment.program is not None:
        return ()
    how = f"put its path in place of {PROGRAM}: moestro engines list --json shows it."
    return (Unexpressed("engine", engine.id, how),)


def own_engine(deployment: Deployment, what: str) -> tuple[Unexpressed, ...]:
    """For targets that bring a llama.cpp of their own, `what` holds it: said where the plan is for
    another engine."""
    engine = deployment.engine
    if engine.id == EMBEDDED:
        return ()
    return (
        Unexpressed(
            "engine",
            engine.id,
            f"{what} runs llama.cpp {RELEASE} or another release of it; the plan's speed and "
            f"memory are those of {release(deployment)}: plan with --engine {EMBEDDED} for this.",
        ),
    )


def alias(deployment: Deployment) -> str:
    """What clients call the model."""
    return alias_of(deployment.name)


def host_expert_blocks(deployment: Deployment) -> tuple[int, ...]:
    """The blocks whose routed experts stay in main memory, in order."""
    blocks = deployment.plan.model.expert_blocks
    return Asked(deployment.settings, deployment.gpus, blocks).host_blocks


def _files(
    deployment: Deployment, model_path: str | None, projector_path: str | None
) -> tuple[Flag, ...]:
    model = model_path or deployment.model_path
    projector = projector_path or deployment.plan.model.projector
    found: list[Flag] = [("--model-url" if is_address(model) else "--model", model)]
    if projector is not None:
        found.append(("--mmproj-url" if is_address(projector) else "--mmproj", projector))
    return tuple(found)
