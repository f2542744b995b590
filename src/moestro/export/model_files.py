"""The model's files, for targets that must show them to a closed-in server: these and no others.

Each is shown alone, never its folder: that may be a home, or hold what is nobody's business. A link
is followed when it is mounted, and keeps its own name inside, so links may lead anywhere.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from moestro.errors import MoestroError
from moestro.export.deployment import Deployment
from moestro.export.location import file_name, is_address

MODELS_FOLDER = "/srv/models"
"""Where files are to be put that the plan has no place for: addresses, another machine's paths."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`paths` are absolute: the model's parts, and `projector` last if there is one. `addresses`
    are to be downloaded to where they are expected, and `elsewhere` are files of another machine to
    be copied there."""

    paths: tuple[str, ...]
    projector: str | None = None
    addresses: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @staticmethod
    def of(deployment: Deployment) -> ModelFiles:
        """Raises MoestroError: two of the files have one name."""
        locations = deployment.locations
        names = list(map(file_name, locations))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise MoestroError(
                f"Two of the model's files are called {twice}, and the server needs both.",
                hint="Rename one, and plan again.",
                code="names-collide",
            )
        homeless = not all(place.startswith("/") for place in locations)
        paths = (
            tuple(f"{MODELS_FOLDER}/{name}" for name in names)
            if homeless
            else tuple(map(_normal, locations))
        )
        return ModelFiles(
            paths,
            None if deployment.plan.model.projector is None else paths[-1],
            tuple(place for place in locations if homeless and is_address(place)),
            tuple(place for place in locations if homeless and not is_address(place)),
        )

    @property
    def model(self) -> str:
        """The file that is given to a server: the first part of a split one."""
        return self.paths[0]

    def steps(self) -> tuple[str, ...]:
        """What has to be done before the files are where the plan's reader looks for them."""
        return (
            *(f"Download into {MODELS_FOLDER}: {address}" for address in self.addresses),
            *(f"Copy into {MODELS_FOLDER}: {path}" for path in self.elsewhere),
        )


def inside(root: str, path: str) -> str:
    """`path` where its file is shown below `root`, under its own name."""
    return f"{root}/{file_name(path)}"


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")
