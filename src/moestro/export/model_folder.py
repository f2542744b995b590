"""Where a model's files lie, for targets that must show a folder to a closed-in server."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from moestro.errors import ModelUnsupported, MoestroError
from moestro.export.deployment import Deployment
from moestro.export.flags import is_address

MODELS_FOLDER = "/srv/models"
"""Where files are to be put that the plan has no place for: addresses, another machine's paths."""

_HUB = "models--"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """`path` is absolute; `model` and `projector` lie below it. `addresses` are to be downloaded
    into it first and `elsewhere` are files of another machine to be copied there."""

    path: str
    model: str
    projector: str | None = None
    addresses: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @staticmethod
    def of(deployment: Deployment) -> ModelFolder:
        """Raises:
        ModelUnsupported: not a GGUF, which is all that llama-server runs.
        MoestroError: model and projector have no folder in common.
        """
        planned = deployment.plan.model
        refuse_safetensors(deployment)
        locations = (*planned.files, *filter(None, (planned.projector,)))
        homeless = [place for place in locations if not PurePosixPath(place).is_absolute()]
        if homeless:
            return ModelFolder(
                MODELS_FOLDER,
                file_name(planned.files[0]),
                None if planned.projector is None else file_name(planned.projector),
                tuple(place for place in locations if is_address(place)),
                tuple(place for place in locations if not is_address(place)),
            )
        folder = _common_folder(locations)
        model, *_ = _below(folder, planned.files)
        projector = None if planned.projector is None else _below(folder, (planned.projector,))[0]
        return ModelFolder(folder, model, projector)

    def inside(self, root: str) -> tuple[str, str | None]:
        """The paths of model and projector where the folder is shown as `root`."""
        projector = None if self.projector is None else f"{root}/{self.projector}"
        return f"{root}/{self.model}", projector

    def steps(self) -> tuple[str, ...]:
        """What has to be done before the files are where the plan's reader looks for them."""
        return (
            *(f"Download into {self.path}: {address}" for address in self.addresses),
            *(f"Copy into {self.path}: {path}" for path in self.elsewhere),
        )


def refuse_safetensors(deployment: Deployment) -> None:
    """Raises ModelUnsupported: a Hugging Face folder, which llama-server does not run."""
    if deployment.model_path.endswith((".safetensors", ".bin")):
        raise ModelUnsupported(
            "This plan is for safetensors; llama-server runs GGUF files.",
            hint="Plan a GGUF of the model, or export to vllm.",
        )


def file_name(location: str) -> str:
    """The last part of a path of any system, or of an address."""
    if is_address(location):
        name = PurePosixPath(unquote(urlsplit(location).path)).name
    elif PureWindowsPath(location).drive:
        name = PureWindowsPath(location).name
    else:
        name = PurePath(location).name
    return name if name.isprintable() and name not in ("", ".", "..") else "model.gguf"


def _common_folder(locations: tuple[str, ...]) -> str:
    """The folder with all of `locations`. Files of a hub's cache are links into the folder of their
    repository, so that one is it."""
    folder = os.path.commonpath([os.path.dirname(place) for place in locations])
    parts = PurePosixPath(folder).parts
    for number, part in enumerate(parts):
        if part.startswith(_HUB) and parts[number + 1 : number + 2] == ("snapshots",):
            folder = str(PurePosixPath(*parts[: number + 1]))
    if folder == "/":
        raise MoestroError(
            "The model has no folder of its own that a service could be shown alone.",
            hint="Put model and projector into one folder and plan again.",
            code="no-model-folder",
        )
    return folder


def _below(folder: str, locations: tuple[str, ...]) -> list[str]:
    return [str(PurePosixPath(place).relative_to(folder)) for place in locations]
