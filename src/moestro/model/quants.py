"""Which of a repository's GGUF files is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.errors import ModelNotFound
from moestro.model.projector import is_projector_name
from moestro.model.splits import parse_split_name

PREFERRED = (
    "Q4_K_M", "UD-Q4_K_M", "UD-Q4_K_XL", "Q4_K_XL", "Q4_K_L", "MXFP4_MOE", "MXFP4", "Q4_K_S",
    "IQ4_XS", "Q4_0", "Q5_K_M", "UD-Q5_K_XL", "Q6_K", "Q8_0", "Q3_K_M", "BF16", "F16",
)  # fmt: skip
"""Tried in this order when no quantization is asked for: 4 bits first, then upwards."""

_LABEL = re.compile(
    r"(?<![A-Za-z0-9])(?P<label>(?:UD-)?(?:"
    r"I?Q\d(?:_(?:K_XXL|K_XL|K_L|K_M|K_S|K|XXS|XS|NL|S|M|\d+))?(?:_\d+)*"
    r"|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP16|F16|F32|FP8))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SIDE_FILES = re.compile(r"(^|[-_./])(imatrix|vocab|lora|adapter|draft|mtp)([-_./]|$)", re.I)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model in a repository. `path` is the file, or the first part of a split one."""

    path: str
    label: str | None

    @property
    def shown(self) -> str:
        return self.label or self.path


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file, and why it was taken."""

    path: str
    label: str | None
    because: str


def candidates(paths: Sequence[str]) -> list[Candidate]:
    """The models among a repository's files: split ones once, side files left out."""
    found = []
    for path in sorted(paths):
        name = path.rpartition("/")[2]
        if not name.lower().endswith(".gguf") or is_projector_name(name):
            continue
        if _SIDE_FILES.search(name):
            continue
        split = parse_split_name(name)
        if split is not None and split.number != 1:
            continue
        found.append(Candidate(path, label_of(path)))
    return found


def label_of(path: str) -> str | None:
    """The quantization in a file's name, or in its folder's; upper case."""
    folder, _, name = path.rpartition("/")
    for text in (name, folder):
        labels = [match["label"].upper() for match in _LABEL.finditer(text)]
        if labels:
            return labels[-1]
    return None


def choose(paths: Sequence[str], quant: str | None, repository: str) -> Chosen:
    """The file that `quant` means; without it a sensible one.

    Raises:
        ModelNotFound: none, or several; the hint lists what there is.
    """
    found = candidates(paths)
    if not found:
        raise ModelNotFound(
            f"{repository} holds no GGUF model.", hint="Look for a repository with GGUF files."
        )
    if quant is not None:
        return _asked(found, quant, repository)
    if len(found) == 1:
        only = found[0]
        return Chosen(only.path, only.label, "it is the only GGUF model in the repository")
    by_label: dict[str | None, list[Candidate]] = {}
    for candidate in found:
        by_label.setdefault(candidate.label, []).append(candidate)
    for label in PREFERRED:
        if len(by_label.get(label, ())) == 1:
            path = by_label[label][0].path
            why = "the usual balance of size and quality" if "4" in label else "the best fit here"
            return Chosen(path, label, f"none was asked for, and {label} is {why}")
    raise ModelNotFound(
        f"{repository} holds {len(found)} GGUF models, and none is the obvious one.",
        hint=f"Name one: {_listing(found)}.",
    )


def _asked(found: list[Candidate], quant: str, repository: str) -> Chosen:
    wanted = quant.upper()
    exact = [candidate for candidate in found if candidate.label == wanted]
    bounded = re.compile(rf"(?<![A-Z0-9]){re.escape(wanted)}(?![A-Z0-9])")
    loose = [candidate for candidate in found if bounded.search(candidate.path.upper())]
    inside = [candidate for candidate in found if wanted in candidate.path.upper()]
    for matches in (exact, loose, inside):
        if len(matches) == 1:
            return Chosen(matches[0].path, matches[0].label, f"{quant} was asked for")
        if matches:
            raise ModelNotFound(
                f"{quant} fits {len(matches)} files of {repository}.",
                hint=f"Write more of the name: {', '.join(m.path for m in matches[:6])}.",
            )
    raise ModelNotFound(f"{repository} has no {quant}.", hint=f"It has: {_listing(found)}.")


def _listing(found: list[Candidate]) -> str:
    shown = list(dict.fromkeys(candidate.shown for candidate in found))
    return ", ".join(shown[:24]) + (", …" if len(shown) > 24 else "")
