"""Verdicts that are kept on this machine, so that `up` knows what `verify` found.

A verdict belongs to a file's content. It is found by a sampled digest, which takes a moment for a
file of any size, and believed for the same lengths and times of change, or after a digest of the
whole. numpy is not needed here: `up` looks here before it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moestro.findings import Finding, Severity
from moestro.hardware import store
from moestro.model.identity import content_digests, sampled_digest

VERDICTS = "verdicts"
PROFILES = "profiles"
_KEPT = 8
_FINDINGS = 12


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """What `verify` said of one file. `files`: path, bytes and time of change (ns) of each part;
    `digests`: the sha256 of each. `findings`: those that decided."""

    verdict: str
    verified_at: datetime
    reference: str
    policy: str
    tokens: int
    digests: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "verified_at": self.verified_at.isoformat(timespec="seconds"),
            "reference": self.reference,
            "policy": self.policy,
            "tokens": self.tokens,
            "digests": list(self.digests),
            "files": [list(file) for file in self.files],
            "findings": [finding.to_json() for finding in self.findings[:_FINDINGS]],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> StoredVerdict:
        return StoredVerdict(
            verdict=str(data["verdict"]),
            verified_at=datetime.fromisoformat(data["verified_at"]),
            reference=str(data["reference"]),
            policy=str(data["policy"]),
            tokens=int(data["tokens"]),
            digests=tuple(str(digest) for digest in data["digests"]),
            files=tuple((str(path), int(size), int(ns)) for path, size, ns in data["files"]),
            findings=tuple(
                Finding(
                    Severity(finding["severity"]),
                    str(finding["code"]),
                    str(finding["title"]),
                    finding["evidence"],
                    finding["fix"],
                )
                for finding in data["findings"]
            ),
        )


def keep_verdict(
    paths: Sequence[Path],
    verdict: str,
    *,
    reference: str,
    policy: str,
    tokens: int,
    digests: tuple[str, ...],
    findings: Sequence[Finding],
) -> None:
    """Keeps what was found of the model in `paths`.

    Raises:
        HardwareError: there is no room, or no place to write.
        ModelError: a file is gone.
    """
    new = StoredVerdict(
        verdict,
        datetime.now(UTC),
        reference,
        policy,
        tokens,
        digests,
        _files(paths),
        (
            *(finding for finding in findings if finding.severity is Severity.FAIL),
            *(finding for finding in findings if finding.severity is Severity.WARN),
        ),
    )

    def with_this(stored: object) -> list[dict[str, Any]]:
        return [one.to_json() for one in (*_verdicts(stored), new)[-_KEPT:]]

    store.update(VERDICTS, sampled_digest(paths), with_this)


def verdict_of(
    paths: Sequence[Path], progress: Callable[[int], None] = lambda done_bytes: None
) -> StoredVerdict | None:
    """What `verify` said of the model in `paths`, wherever it lay then; None if nothing.

    The last verdict counts, but a *fail* stands until as many tokens say otherwise. The whole
    content is read only where a verdict that is no *pass* was found by the sample alone;
    `progress` is told how many bytes of it are done.

    Raises:
        ModelError: a file cannot be read.
    """
    found = _verdicts(store.load(VERDICTS, sampled_digest(paths)).payload)
    if not found:
        return None
    here = {(size, ns) for _, size, ns in _files(paths)}
    same = [one for one in found if {(size, ns) for _, size, ns in one.files} == here]
    if same:
        return _standing(same)
    if all(one.verdict == "pass" for one in found):
        return found[-1]
    digests = content_digests(paths, progress)
    return _standing([one for one in found if one.digests == digests])


def keep_profile(paths: Sequence[Path], profile: dict[str, Any]) -> None:
    """Keeps what was found of the routers of the model in `paths`, in place of what was there.

    Raises:
        HardwareError: there is no room, or no place to write.
        ModelError: a file is gone.
    """
    store.save(PROFILES, sampled_digest(paths), profile)


def profile_of(paths: Sequence[Path]) -> dict[str, Any] | None:
    """What was kept of the model in `paths`, found by a sample of its content; None if nothing.

    Raises:
        ModelError: a file cannot be read.
    """
    found = store.load(PROFILES, sampled_digest(paths))
    if not isinstance(found.payload, dict):
        return None
    saved_at = found.saved_at.isoformat() if found.saved_at is not None else None
    return {**found.payload, "verified_at": saved_at}


def _standing(verdicts: Sequence[StoredVerdict]) -> StoredVerdict | None:
    standing: StoredVerdict | None = None
    for one in verdicts:
        if standing is None or standing.verdict != "fail" or one.tokens >= standing.tokens:
            standing = one
    return standing


def _verdicts(stored: object) -> tuple[StoredVerdict, ...]:
    """Entries that another version wrote, or that are damaged, count as absent."""
    if not isinstance(stored, list):
        return ()
    verdicts = []
    for entry in stored:
        try:
            verdicts.append(StoredVerdict.from_json(entry))
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(verdicts)


def _files(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for path in paths:
        status = path.stat()
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(found)
