"""llama-server in a container: which image, and what all platforms have to know of it."""

from __future__ import annotations

import hashlib
import re

from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments, unexpressed
from moestro.export.model_folder import ModelFolder
from moestro.export.target import Unexpressed

RELEASE = f"b{EXPECTED_VERSION.rpartition('.')[2]}"
PORT = 8080
"""Inside; the image's own default."""
MODELS = "/models"
"""Where the model's folder appears inside."""

_REPOSITORY = "ghcr.io/ggml-org/llama.cpp"
_KINDS = {"nvidia": "server-cuda", "amd": "server-rocm"}
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


def vendor(deployment: Deployment) -> str | None:
    """Whose GPUs the server is to use; None without one."""
    gpus = deployment.plan.hardware.gpus
    return gpus[0].vendor if gpus else None


def arguments(deployment: Deployment, folder: ModelFolder) -> list[str]:
    """Of llama-server in a container that shows `folder` as `MODELS`."""
    model, projector = folder.inside(MODELS)
    return server_arguments(
        deployment, model_path=model, projector_path=projector, host="0.0.0.0", port=PORT
    )


def not_in_a_container(deployment: Deployment) -> tuple[Unexpressed, ...]:
    """What no container of llama.cpp has words for."""
    found = list(unexpressed(deployment))
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
    projects and units. Names that lose more than their case and their dots keep a digest."""
    name = re.sub(r"[^a-z0-9]+", "-", deployment.name.lower()).strip("-")
    lost = not name or len(name) > _LONGEST_NAME or not deployment.name.isascii()
    if lost:
        digest = hashlib.sha256(deployment.name.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST_NAME - 9].strip('-')}-{digest}".strip("-")
    return name if name[0].isalpha() else f"model-{name}"
