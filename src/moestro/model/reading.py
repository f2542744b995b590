"""`read_model`: from what the user named to a ModelSpec."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from moestro.errors import (
    ModelCorrupt,
    ModelNotFound,
    ModelPartMissing,
    UsageError,
)
from moestro.model.foreign import refuse_other_kinds
from moestro.model.gguf import read_gguf_header
from moestro.model.gguf_model import Part, model_of_parts
from moestro.model.metadata import Value
from moestro.model.projector import find_projector, is_projector_name
from moestro.model.reference import (
    Demo,
    Folder,
    HubRef,
    LocalFile,
    Reference,
    Url,
    looks_like_repository,
)
from moestro.model.source import ByteSource, FileSource, unreadable
from moestro.model.spec import ModelSpec, Projector
from moestro.model.splits import SplitName, parse_split_name

Opener = Callable[[str], ByteSource]


def read_model(reference: Reference | Path) -> ModelSpec:
    """Reads headers only: nothing of the weights, wherever they are.

    Raises:
        ModelError: see `moestro.errors`; one for each way in which a file can be wrong.
        DownloadError: a server cannot be reached or answers with nonsense.
        UsageError: `demo`, which only the command line can resolve.
    """
    match reference:
        case Path():
            return read_model(Folder(reference) if reference.is_dir() else LocalFile(reference))
        case LocalFile(path):
            return read_local(path)
        case Folder(path):
            return read_folder(path)
        case Url(address):
            from moestro.model.remote import read_remote

            return read_remote(address)
        case HubRef():
            from moestro.model.hub import read_hub

            return read_hub(reference)
        case Demo():
            raise UsageError("The demo model is not known here.", hint="Give its path instead.")


def read_local(path: Path) -> ModelSpec:
    """A GGUF file, or the split set that it is a part of."""
    if not path.exists() and looks_like_repository(str(path)):
        raise ModelNotFound(
            f"There is no file {path}.", hint=f"For a model on the hub write hf:{path}."
        )
    return read_parts(
        path.name,
        open_part=lambda name: FileSource(path.with_name(name)),
        has_part=lambda name: path.with_name(name).is_file(),
        projector=lambda: find_projector(path),
    )


def read_folder(path: Path) -> ModelSpec:
    """A folder in Hugging Face layout, or one that holds the GGUF files of one model."""
    if (path / "config.json").is_file() or (path / "model_index.json").is_file():
        from moestro.model.hugging_face import read_hugging_face_folder

        return read_hugging_face_folder(path)
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise unreadable(path, error) from error
    models = gguf_models(names)
    if len(models) == 1:
        return read_local(path / models[0])
    if models:
        shown = ", ".join(models[:4]) + (", …" if len(models) > 4 else "")
        raise ModelNotFound(
            f"{path} holds {len(models)} GGUF models.", hint=f"Give one of them: {shown}."
        )
    if any(name.endswith(".safetensors") for name in names):
        from moestro.model.hugging_face import refuse_weights_without_config

        refuse_weights_without_config(path, names)
    raise ModelNotFound(
        f"{path} holds no model.",
        hint="A model folder has config.json and safetensors files, or a GGUF file.",
    )


def gguf_models(names: list[str]) -> list[str]:
    """Of file names in one folder: each GGUF model once (a split one by its first part), without
    projectors."""
    models = []
    for name in names:
        if not name.lower().endswith(".gguf") or is_projector_name(name):
            continue
        split = parse_split_name(name)
        if split is None or split.number == 1 or split.part(1) not in names:
            models.append(name)
    return models


def read_parts(
    name: str,
    *,
    open_part: Opener,
    has_part: Callable[[str], bool] | None,
    projector: Callable[[], Projector | None],
) -> ModelSpec:
    """Reads the file called `name`, and its sisters if it is one of several.

    `open_part` opens a sister by its name; `has_part` says whether it exists, where that can be
    told without opening it.

    Raises:
        ModelPartMissing: a part is not there.
    """
    split = parse_split_name(name)
    if split is None:
        part = _read_part(open_part(name))
        if _number(part.header.metadata, "split.count") > 1:
            count = _number(part.header.metadata, "split.count")
            raise ModelPartMissing(
                f"{name} is one of {count} parts, but its name does not say which.",
                hint=f"Give the parts their names back: model-00001-of-{count:05d}.gguf, …",
            )
        return model_of_parts([part], projector())
    if has_part is not None:
        if not has_part(name):
            _read_part(open_part(name))  # says why
        missing = [part for part in split.parts() if not has_part(part)]
        if missing:
            raise _missing(split, missing)
    parts = []
    for number, part_name in enumerate(split.parts()):
        try:
            source = open_part(part_name)
            part = _read_part(source)
        except ModelNotFound as error:
            if number + 1 == split.number and number == 0:
                raise
            raise _missing(split, [part_name]) from error
        _check_part(part, number, split)
        parts.append(part)
    _check_total(parts)
    return model_of_parts(parts, projector())


def _read_part(source: ByteSource) -> Part:
    with closing(source):
        header = read_gguf_header(source)
        return Part(
            source.name, source.location, source.size_bytes, source.transferred_bytes, header
        )


def _check_part(part: Part, number: int, split: SplitName) -> None:
    metadata = part.header.metadata
    if number == 0:
        architecture = metadata.get("general.architecture")
        refuse_other_kinds(part.name, architecture if isinstance(architecture, str) else None, None)
    said = (_number(metadata, "split.no"), _number(metadata, "split.count"))
    if said != (number, split.count):
        raise ModelCorrupt(
            f"{part.name} says that it is part {said[0] + 1} of {said[1]}.",
            hint="The parts were renamed or mixed up; get them again.",
        )


def _check_total(parts: list[Part]) -> None:
    wanted = _number(parts[0].header.metadata, "split.tensors.count")
    found = sum(len(part.header.tensors) for part in parts)
    if wanted and wanted != found:
        raise ModelCorrupt(
            f"The parts of {parts[0].name} hold {found:,} tensors; {wanted:,} were split.",
            hint="The parts do not belong together; get them all again.",
        )


def _number(metadata: dict[str, Value], key: str) -> int:
    value = metadata.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _missing(split: SplitName, missing: list[str]) -> ModelPartMissing:
    shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    return ModelPartMissing(
        f"{len(missing)} of {split.count} parts of {split.stem} "
        f"{'is' if len(missing) == 1 else 'are'} missing: {shown}.",
        hint="All parts must lie in one place under their own names; get the missing ones.",
    )
