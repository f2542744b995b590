"""Models on a Hugging Face hub: `hf:owner/repo[:quant]` to an address.

The hub is where `HF_ENDPOINT` says, the token where huggingface-hub finds it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moestro.errors import DownloadError, ModelNotFound, ModelUnsupported, MoestroError
from moestro.findings import Finding, Severity
from moestro.model.foreign import HUB_TASKS, diffusion_error
from moestro.model.projector import choose_projector
from moestro.model.quants import Chosen, candidates, choose
from moestro.model.reference import HubRef
from moestro.model.spec import ModelSpec, Projector
from moestro.model.splits import parse_split_name

LIST_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository. `commit` is None when only the local cache could be asked.

    `sizes` holds the bytes of each file whose length is known.
    """

    repository: str
    files: tuple[str, ...]
    commit: str | None
    task: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def offers(self) -> list[Offer]:
        """Every GGUF model here whose length is known, the largest first."""
        found = []
        for candidate in candidates(self.files):
            sizes = [self.sizes.get(part) for part in parts_of(candidate.path)]
            if sizes and None not in sizes:
                total = sum(size for size in sizes if size is not None)
                found.append(Offer(candidate.path, candidate.label, total))
        return sorted(found, key=lambda offer: -offer.size_bytes)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model in a repository: its (first) file, its label, the bytes of all its parts."""

    path: str
    label: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model in a repository: all its parts, the first one first, and why this one."""

    listing: Listing
    chosen: Chosen
    parts: tuple[str, ...]
    projector: str | None


def endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def address_of(repository: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, endpoint=endpoint())


def read_hub(reference: HubRef) -> ModelSpec:
    """The model's header, from the local cache if it is there, else over the network.

    Raises:
        ModelError, DownloadError: see `moestro.model.read_model`.
    """
    from moestro.model.reading import read_local
    from moestro.model.remote import read_remote

    resolved = resolve(reference)
    cached = cached_file(reference.repository, resolved.chosen.path)
    if cached is not None and all(cached_file(reference.repository, p) for p in resolved.parts):
        spec = read_local(cached)
    else:
        projector = None
        if resolved.projector is not None:
            projector = Projector(address_of(reference.repository, resolved.projector), None)
        spec = read_remote(
            address_of(reference.repository, resolved.chosen.path),
            token=token(),
            projector=projector,
        )
    if reference.quant is not None:
        return spec
    finding = Finding(
        Severity.INFO,
        "file-chosen",
        f"{resolved.chosen.path} was chosen",
        resolved.chosen.because,
        f"Name another one like hf:{reference.repository}:Q8_0.",
    )
    return replace(spec, findings=(*spec.findings, finding))


def resolve(reference: HubRef) -> Resolved:
    """Which files of the repository are meant.

    Raises:
        ModelNotFound: no such repository or quantization.
        ModelUnsupported: the repository holds something other than a language model in GGUF.
        DownloadError: the hub cannot be reached and the cache does not help.
    """
    listing = list_files(reference.repository)
    if not candidates(listing.files):
        raise _no_gguf(listing)
    chosen = choose(listing.files, reference.quant, str(reference.repository))
    name = chosen.path.rpartition("/")[2]
    projector = choose_projector(listing.files, name)
    return Resolved(listing, chosen, parts_of(chosen.path), projector)


def parts_of(path: str) -> tuple[str, ...]:
    """All parts of the model whose (first) file is `path`."""
    folder, _, name = path.rpartition("/")
    split = parse_split_name(name)
    prefix = f"{folder}/" if folder else ""
    return (path,) if split is None else tuple(prefix + part for part in split.parts())


def list_files(repository: str) -> Listing:
    """The repository's files; from the local cache if the hub cannot be reached.

    Raises:
        ModelNotFound, DownloadError
    """
    from huggingface_hub import HfApi

    try:
        with translated(repository):
            info = HfApi(endpoint=endpoint()).model_info(
                repository, timeout=LIST_TIMEOUT_SECONDS, token=token(), files_metadata=True
            )
    except DownloadError:
        cached = _cached_listing(repository)
        if cached is None:
            raise
        return cached
    siblings = [file for file in info.siblings or () if file.rfilename.isprintable()]
    return Listing(
        repository,
        tuple(file.rfilename for file in siblings),
        info.sha,
        info.pipeline_tag,
        {file.rfilename: file.size for file in siblings if file.size is not None},
    )


def cached_file(repository: str, path: str) -> Path | None:
    """Where an earlier download of any program left this file."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, path, cache_dir=cache_folder())
    return Path(found) if isinstance(found, str) else None


def _cached_listing(repository: str) -> Listing | None:
    from huggingface_hub.file_download import repo_folder_name

    folder = cache_folder() / repo_folder_name(repo_id=repository, repo_type="model")
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    files = tuple(
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    )
    return Listing(repository, files, None) if candidates(files) else None


def _no_gguf(listing: Listing) -> MoestroError:
    name = listing.repository
    what = HUB_TASKS.get(listing.task or "")
    if what is None and "model_index.json" in listing.files:
        what = "an image or video model"
    if what is None and any("diffusion_models/" in path for path in listing.files):
        what = "an image or video model"
    if what is not None:
        return diffusion_error(name, what)
    if any(path.endswith(".safetensors") for path in listing.files):
        return ModelUnsupported(
            f"{name} holds safetensors files, but no GGUF.",
            hint="Look for a repository of the same model whose name ends in GGUF; or download "
            "this one and give its folder to `moestro inspect`.",
        )
    return ModelNotFound(
        f"{name} holds no GGUF model.", hint="Look for a repository with GGUF files."
    )


@contextlib.contextmanager
def translated(repository: str) -> Iterator[None]:
    """Turns huggingface-hub's errors into moestro's."""
    from huggingface_hub import errors

    # The base of its HTTP client's errors; which client that is changes between its versions.
    client_error = getattr(errors, "HTTPError", OSError)
    try:
        yield
    except MoestroError:
        raise
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{repository} is gated.",
            hint="Accept its terms on the hub, then run `hf auth login` or set HF_TOKEN.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"The hub has no {repository} that you can see.",
            hint="Check the spelling; for a private one run `hf auth login` or set HF_TOKEN.",
        ) from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _absent(repository, error) from error
    except errors.HFValidationError as error:
        raise ModelNotFound(
            f"{repository} cannot be a repository's name.", hint="Write it like hf:owner/repo."
        ) from error
    except (errors.HfHubHTTPError, client_error, OSError, ValueError) as error:
        raise _trouble(repository, error) from error


def _absent(repository: str, error: Exception) -> MoestroError:
    # huggingface-hub reports "not in the cache and no network" as an absent entry.
    if type(error).__name__ == "LocalEntryNotFoundError":
        return _trouble(repository, error)
    return ModelNotFound(f"{repository} has no such file.", hint="Its files may have changed.")


def _trouble(repository: str, error: Exception) -> DownloadError:
    server = endpoint().partition("://")[2]
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return DownloadError(
            f"{server} does not let you read {repository} (HTTP {status}).",
            hint="Run `hf auth login` or set HF_TOKEN.",
        )
    if status is not None:
        return DownloadError(
            f"{server} answered HTTP {status} for {repository}.", hint="Try again later."
        )
    return DownloadError(
        f"The hub at {server} cannot be reached.",
        hint="Check the network and HF_ENDPOINT; a model that is here already can be given by "
        "its path.",
    )
