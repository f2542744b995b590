"""llama-server in a container: which image, and what all platforms have to know of it."""

from __future__ import annotations

import hashlib
import re

from moestro.errors import MoestroError
from moestro.export.deployment import Deployment
from moestro.export.flags import RELEASE, own_engine, server_arguments, unexpressed
from moestro.export.model_files import inside
from moestro.export.target import Unexpressed

PORT = 8080
"""Inside; the image's own default."""
MODELS = "/models"
"""Where the model's files appear inside."""

_REPOSITORY = "ghcr.io/ggml-org/llama.cpp"
_KINDS = {"nvidia": "server-cuda", "amd": "server-rocm"}
_UNLOST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([._-][A-Za-z0-9]+)*", re.ASCII)
_LONGEST_NAME = 40
"""Of the 63 characters of a label; Kubernetes puts 17 behind a Pod's and names add words."""

WHICH_IMAGE = (
    f"The image is pinned to {RELEASE}, the llama.cpp that the plan was made with: flags and",
    "memory are those of this release. Images are built daily, not for every release; if this",
    "one is missing, take the next higher number.",
)

READABLE = "The model's files have to be readable for everyone: chmod a+r."
"""The server runs as a user who owns nothing."""


def image(deployment: Deployment) -> str:
    return f"{_REPOSITORY}:{_KINDS.get(vendor(deployment) or '', 'server')}-{RELEASE}"


def vendors(deployment: Deployment) -> tuple[str, ...]:
    """Whose GPUs the server is to use, each named once."""
    return tuple(dict.fromkeys(gpu.vendor for gpu in deployment.plan.hardware.gpus))


def vendor(deployment: Deployment) -> str | None:
    """Whose GPUs a container is to use; None without one.

    Raises:
        MoestroError: those of several makers.
    """
    makers = vendors(deployment)
    if len(makers) > 1:
        raise MoestroError(
            "No image of llama.cpp drives the GPUs of several makers, as this plan wants.",
            hint="Plan for the GPUs of one, or export to systemd or llama-server.",
            code="mixed-gpus",
        )
    return makers[0] if makers else None


def arguments(deployment: Deployment) -> list[str]:
    """Of llama-server in a container that shows the model's files below `MODELS`."""
    projector = deployment.plan.model.projector
    return server_arguments(
        deployment,
        model_path=inside(MODELS, deployment.model_path),
        projector_path=None if projector is None else inside(MODELS, projector),
        host="0.0.0.0",
        port=PORT,
    )


def not_in_a_container(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """What no container of llama.cpp has words for."""
    found = [*own_engine(deployment, "The image"), *unexpressed(deployment)]
    if vendor(deployment) == "apple":
        found.append(
            Unexpressed(
                "gpu_layers",
                "on the GPU",
                "Containers on a Mac have no Metal, so it all runs on the CPU, slower than "
                "planned: run llama-server there without a container.",
            )
        )
    return (*found, *unlimited(deployment))


def unlimited(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """Said where the plan cannot tell how much memory to grant."""
    if deployment.plan.fits is not None:
        return ()
    return (
        Unexpressed(
            "memory",
            "not known in full",
            "No memory limit is set: the plan does not know all that the server takes.",
        ),
    )


def safe_name(deployment: Deployment) -> str:
    """The model's name as a label of RFC 1123 that begins with a letter, good for services,
    projects and units. Dots and underscores, which every GGUF's name has, become dashes; a
    name that loses more than those and its case gets a digest, so that no other is like it."""
    name = re.sub(r"[^a-z0-9]+", "-", deployment.name.lower()).strip("-")
    if len(name) > _LONGEST_NAME or not _UNLOST_NAME.fullmatch(deployment.name):
        digest = hashlib.sha256(deployment.name.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST_NAME - 9].strip('-')}-{digest}".strip("-")
    return name if name[0].isalpha() else f"model-{name}"
