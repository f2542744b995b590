"""Are the model's files whole, and are they what was published?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.model.completeness import Completeness, FileState
from moestro.units import format_bytes

_AGAIN = "Download or copy it again, and compare its SHA-256 with the publisher's."


def run(case: Case) -> Iterator[Finding]:
    model = case.model
    if model is None:
        return
    if not model.paths:
        yield unknown(
            "model-elsewhere",
            "The model's files are not on this machine",
            model.spec.files[0].location,
            "Download them and examine the copy: what arrives is what will be served.",
        )
        return
    if model.completeness is None:
        yield unknown(
            "model-files-not-examined",
            "The model's files were not looked at",
            None,
            "Run moestro doctor with the model's path.",
        )
        return
    if isinstance(model.completeness, MoestroError):
        # Its header was read a moment ago: the file changes, or the disk fails.
        yield Finding(
            Severity.FAIL,
            "model-files-unreadable",
            "The model's files cannot be read to their end",
            model.completeness.sentence,
            model.completeness.hint or _AGAIN,
        )
        return
    files = model.completeness.files
    trouble = [*_holes(files), *_modified(files)]
    yield from trouble
    yield from _trailing(files)
    if not trouble:
        yield _whole(model.completeness)


def _holes(files: tuple[FileState, ...]) -> Iterator[Finding]:
    # A file that is what was published is whole, however its zeros are kept.
    bad = [file for file in files if file.hole_bytes and not _is_published(file)]
    if bad:
        yield Finding(
            Severity.FAIL,
            "model-has-holes",
            "Parts of the weights were never written",
            "; ".join(
                f"{format_bytes(file.hole_bytes)} of {format_bytes(file.size_bytes)} missing in "
                f"{file.path.name}"
                for file in bad
            ),
            f"The download stopped after its space had been set aside. {_AGAIN}",
        )


def _modified(files: tuple[FileState, ...]) -> Iterator[Finding]:
    bad = [
        file
        for file in files
        if None not in (file.known_sha256, file.found_sha256) and not _is_published(file)
    ]
    if bad:
        yield Finding(
            Severity.FAIL,
            "model-modified",
            "The file is not the one that was published",
            "; ".join(
                f"{file.path.name}: {file.known_from} says {_short(file.known_sha256)}, "
                f"it has {_short(file.found_sha256)}"
                for file in bad
            ),
            f"If nobody changed it on purpose, it is damaged. {_AGAIN}",
        )


def _trailing(files: tuple[FileState, ...]) -> Iterator[Finding]:
    bad = [file for file in files if file.trailing_bytes]
    if bad:
        yield Finding(
            Severity.INFO,
            "model-trailing-bytes",
            "Something follows the last tensor that no header speaks of",
            "; ".join(f"{format_bytes(file.trailing_bytes)} in {file.path.name}" for file in bad),
            f"Engines do not read it. If the publisher's file is shorter: {_AGAIN}",
        )


def _whole(completeness: Completeness) -> Finding:
    files = completeness.files
    size = format_bytes(sum(file.size_bytes for file in files))
    parts = f"{len(files)} parts, " if len(files) > 1 else ""
    if all(_is_published(file) for file in files):
        sources = ", ".join(dict.fromkeys(str(file.known_from) for file in files))
        return ok(
            "complete",
            "The files are whole, and what was published",
            f"{parts}{size}, SHA-256 as {sources} {'say' if ',' in sources else 'says'}",
        )
    waiting = [file for file in files if file.known_sha256 and not file.found_sha256]
    if waiting:
        return Finding(
            Severity.INFO,
            "model-hash-not-computed",
            "The files have the right length; their contents were not compared",
            f"{parts}{size}; {waiting[0].known_from} tells the SHA-256",
            "Run moestro doctor with --full to read them whole.",
        )
    return ok(
        "complete",
        "The files have the right length",
        f"{parts}{size}; nothing here tells their published SHA-256",
    )


def _is_published(file: FileState) -> bool:
    return file.known_sha256 is not None and file.known_sha256 == file.found_sha256


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "?"


CHECK = Check("complete", "model", "Are the files whole, and what was published?", run)
