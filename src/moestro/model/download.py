"""Brings a whole model onto this machine and says where it is.

Hub models go into huggingface-hub's own cache, in its layout, so that every program on the machine
shares them: what is there is used, and what is missing is fetched, continued after an interruption,
and checked against its SHA-256. (huggingface-hub itself begins an interrupted file anew.) Files
from plain addresses go into moestro's cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from moestro.errors import DownloadError, NoHome, UsageError
from moestro.model import hub
from moestro.model.http import file_name, sister
from moestro.model.reference import Demo, Folder, HubRef, LocalFile, Reference, Url
from moestro.model.splits import parse_split_name
from moestro.model.transfer import Progress, check_room, partial_bytes, probe, transfer

_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


def fetch(reference: Reference, progress: Progress | None = None) -> Path:
    """The model's file (the first part of a split one), complete and on this machine.

    `progress` is called with (bytes that are here, bytes in all), over all parts together.

    Raises:
        ModelNotFound, ModelUnsupported: the reference names nothing that can be fetched.
        DownloadError: network, disk or hash.
        UsageError: `demo`, which only the command line can resolve.
    """
    match reference:
        case LocalFile(path) | Folder(path):
            return path
        case HubRef():
            return _fetch_from_hub(reference, progress)
        case Url(address):
            return _fetch_address(address, progress)
        case Demo():
            raise UsageError("The demo model is not known here.", hint="Give its path instead.")


def cache_folder() -> Path:
    """Where files from plain addresses are kept: `MOESTRO_CACHE`, or the platform's usual place.

    Raises:
        NoHome: there is no such place.
    """
    chosen = os.environ.get("MOESTRO_CACHE")
    if chosen:
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "moestro"
        place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise NoHome("MOESTRO_CACHE") from error
    return Path(place) / "moestro"


@dataclass(slots=True)
class _Total:
    """Adds the progress of several files up."""

    progress: Progress | None
    all_bytes: int | None
    done_bytes: int = 0

    def of_file(self, here: int, _of: int | None) -> None:
        if self.progress is not None:
            self.progress(self.done_bytes + here, self.all_bytes)

    def finished(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes
        if self.progress is not None:
            self.progress(self.done_bytes, self.all_bytes)


def _fetch_from_hub(reference: HubRef, progress: Progress | None) -> Path:
    resolved = hub.resolve(reference)
    repository = reference.repository
    if resolved.listing.commit is None:  # the hub is out of reach
        return _from_cache_alone(repository, resolved.parts)
    wanted = [_HubFile.ask(repository, part) for part in resolved.parts]
    missing = [file for file in wanted if not file.cached]
    check_room(
        hub.cache_folder(),
        sum(max(file.size_bytes - partial_bytes(file.blob), 0) for file in missing),
        str(reference),
    )
    total = _Total(progress, sum(file.size_bytes for file in wanted))
    paths = []
    for file in wanted:
        if not file.cached and file.sha256 is not None:
            transfer(
                file.address,
                file.blob,
                token=hub.token(),
                sha256=file.sha256,
                progress=total.of_file,
            )
        paths.append(file.place())
        total.finished(file.size_bytes)
    return paths[0]


def _from_cache_alone(repository: str, parts: tuple[str, ...]) -> Path:
    paths = [hub.cached_file(repository, part) for part in parts]
    first = paths[0]
    if first is None or None in paths:
        raise DownloadError(
            f"{repository} is only partly here, and the hub cannot be reached.",
            hint="Check the network and HF_ENDPOINT.",
        )
    return first


@dataclass(frozen=True, slots=True)
class _HubFile:
    """One file of a repository as the hub describes it; `blob` is its place in the hub's cache.

    `sha256` is None for small files that are kept in git itself.
    """

    repository: str
    path: str
    address: str
    size_bytes: int
    sha256: str | None
    blob: Path
    cached: bool

    @classmethod
    def ask(cls, repository: str, path: str) -> _HubFile:
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.file_download import repo_folder_name

        address = hub.address_of(repository, path)
        with hub.translated(repository):
            described = get_hf_file_metadata(address, token=hub.token(), endpoint=hub.endpoint())
        tag = described.etag or ""
        sha256 = tag if _SHA256.fullmatch(tag) else None
        folder = hub.cache_folder() / repo_folder_name(repo_id=repository, repo_type="model")
        blob = folder / "blobs" / (tag or "unknown")
        return cls(repository, path, address, described.size or 0, sha256, blob, blob.exists())

    def place(self) -> Path:
        """Lets huggingface-hub link the blob into its snapshot, or fetch what has no SHA-256."""
        from huggingface_hub import hf_hub_download

        with hub.translated(self.repository):
            return Path(
                hf_hub_download(
                    self.repository,
                    self.path,
                    cache_dir=hub.cache_folder(),
                    endpoint=hub.endpoint(),
                    token=hub.token(),
                )
            )


def _fetch_address(address: str, progress: Progress | None) -> Path:
    split = parse_split_name(file_name(address))
    names = split.parts() if split else [file_name(address)]
    addresses = [sister(address, name) for name in names] if split else [address]
    # Sisters share a folder, named after the address they come from.
    origin = sister(address, "")
    folder = cache_folder() / "models" / hashlib.sha256(origin.encode()).hexdigest()[:16]
    targets = [folder / _safe(name) for name in names]
    try:
        remotes = [probe(each) for each in addresses]
    except DownloadError:
        if all(target.is_file() for target in targets):
            return targets[0]
        raise
    sizes = [remote.size_bytes or 0 for remote in remotes]
    todo = [
        not target.is_file() or (size and target.stat().st_size != size)
        for target, size in zip(targets, sizes, strict=True)
    ]
    needed = sum(
        max(size - partial_bytes(target), 0)
        for target, size, missing in zip(targets, sizes, todo, strict=True)
        if missing
    )
    check_room(folder, needed, file_name(address))
    total = _Total(progress, sum(sizes) or None)
    for each, target, size, missing in zip(addresses, targets, sizes, todo, strict=True):
        if missing:
            transfer(each, target, progress=total.of_file)
        total.finished(size)
    return targets[0]


def _safe(name: str) -> str:
    """A file name from an address, without anything that could lead out of the folder."""
    cleaned = re.sub(r"[^\w.+-]", "_", name)[:200].lstrip(".")
    return cleaned or "model.gguf"
