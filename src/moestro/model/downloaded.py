"""Models that were downloaded: what lies in huggingface-hub's cache and in moestro's own.

In the hub's cache a file is a link in a snapshot of its repository, and its bytes are a blob that
other snapshots may link to as well. moestro's own has files and what is left of broken downloads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moestro.errors import ModelError
from moestro.model import hub
from moestro.model.download import cache_folder
from moestro.model.splits import parse_split_name
from moestro.model.transfer import in_progress

_LEFT = (".part", ".part.json")
_UNFINISHED = " (unfinished)"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """One model. `name` is what `remove` takes. `paths` are its files, links where it is the hub's;
    `size_bytes` is what they take on the disk, and `used_at` when one of them was last read or
    written, in seconds since the epoch. `whole` is False for what is left of a broken download."""

    name: str
    paths: tuple[Path, ...]
    size_bytes: int
    used_at: float
    whole: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "files": [str(path) for path in self.paths],
            "size_bytes": self.size_bytes,
            "used_at": self.used_at,
            "whole": self.whole,
        }


def downloaded() -> list[Downloaded]:
    """All of them, the largest first. Folders that cannot be read are as good as empty."""
    found = [*_grouped(_hub_files()), *_grouped(_own_files())]
    return sorted(found, key=lambda one: (-one.size_bytes, one.name))


def find(name: str) -> Downloaded:
    """The model of that name, or of the only one that ends with it.

    Raises:
        ModelError: there is none, or there are several.
    """
    every = downloaded()
    exact = [one for one in every if one.name == name]
    fitting = exact or [one for one in every if one.name.endswith(f"/{name}")]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(one.name for one in fitting[:4])
        raise ModelError(
            f"“{name}” may mean {len(fitting)} models: {names}.",
            hint="Give the whole name.",
            code="several-models",
        )
    raise ModelError(
        f"No downloaded model is called “{name[:80]}”.",
        hint="moestro models list shows them. Files of your own are yours to delete.",
        code="no-such-model",
    )


def remove(model: Downloaded) -> int:
    """Deletes its files, and the blobs that nothing else links to; the bytes that this freed.

    Raises:
        ModelError: it is being downloaded, or a file cannot be deleted.
    """
    if any(path.name.endswith(_LEFT[0]) and in_progress(path) for path in model.paths):
        raise ModelError(
            f"{model.name.removesuffix(_UNFINISHED)} is being downloaded.",
            hint="End that process first.",
            code="in-progress",
        )
    freed = 0
    for path in model.paths:
        blob = path.resolve() if path.is_symlink() else None
        try:
            if blob is None:
                freed += path.stat().st_size
                path.unlink()
                continue
            path.unlink()
            if not _is_linked(blob):
                freed += blob.stat().st_size
                blob.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelError(
                f"{path} cannot be deleted: {error.strerror or error}.",
                hint="See who may write to its folder.",
                code="not-deleted",
            ) from error
        with contextlib.suppress(OSError):  # others may use the folder
            path.parent.rmdir()
    return freed


def _is_linked(blob: Path) -> bool:
    """Whether a snapshot of its repository still names this blob."""
    snapshots = blob.parent.parent / "snapshots"
    return any(path.is_symlink() and path.resolve() == blob for path in snapshots.rglob("*"))


def _hub_files() -> Iterator[tuple[str, Path]]:
    for folder in _within(hub.cache_folder(), "models--*"):
        repository = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _within(folder / "snapshots", "*"):
            for path in _within(snapshot, "**/*.gguf"):
                inner = path.parent.relative_to(snapshot)
                yield "/".join((repository, *inner.parts)), path
        for blob in _within(folder / "blobs", "*.part"):
            yield repository, blob


def _own_files() -> Iterator[tuple[str, Path]]:
    for folder in _within(cache_folder() / "models", "*"):
        for path in _within(folder, "*"):
            yield folder.name, path


def _within(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _grouped(files: Iterable[tuple[str, Path]]) -> list[Downloaded]:
    """Parts of a split model are one."""
    groups: dict[tuple[str, bool], list[Path]] = {}
    for place, path in files:
        name, whole = path.name, True
        for ending in _LEFT:
            if name.endswith(ending):
                name, whole = name.removesuffix(ending), False
        split = parse_split_name(name)
        stem = split.stem if split is not None else name.removesuffix(".gguf")
        groups.setdefault((f"{place}/{stem}", whole), []).append(path)
    return [_one(name, paths, whole) for (name, whole), paths in groups.items()]


def _one(name: str, paths: list[Path], whole: bool) -> Downloaded:
    blobs: dict[Path, tuple[int, float]] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            blobs[path.resolve()] = status.st_size, max(status.st_atime, status.st_mtime)
    return Downloaded(
        name=name if whole else f"{name}{_UNFINISHED}",
        paths=tuple(paths),
        size_bytes=sum(size for size, _ in blobs.values()),
        used_at=max((at for _, at in blobs.values()), default=0.0),
        whole=whole,
    )
