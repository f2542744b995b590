"""What `verify` found: the figures, the findings, and the verdict that gates serving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from moestro.findings import Finding, Severity

if TYPE_CHECKING:
    from moestro.routing.paired import PairedRouting
    from moestro.verify.divergence import Divergence
    from moestro.verify.policy import Policy
    from moestro.verify.repetition import Repetition


class Verdict(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"

    @staticmethod
    def of(findings: Iterable[Finding]) -> Verdict:
        """The worst finding decides; what could not be found out is never a pass."""
        worst = {finding.severity for finding in findings}
        if Severity.FAIL in worst:
            return Verdict.FAIL
        if worst & {Severity.WARN, Severity.UNKNOWN}:
            return Verdict.WARN
        return Verdict.PASS


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the two models: `name` for people; `digests`, the sha256 of each of its files, are
    empty where they were not read."""

    name: str
    architecture: str
    quantization: str | None
    size_bytes: int | None
    digests: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "architecture": self.architecture,
            "quantization": self.quantization,
            "size_bytes": self.size_bytes,
            "digests": list(self.digests),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Compared:
        """The inverse of `to_json`, for content that nobody vouches for.

        Raises:
            ValueError: it is something else.
        """
        name, architecture = data["name"], data["architecture"]
        quantization, size = data["quantization"], data["size_bytes"]
        texts = (name, architecture, *([quantization] if quantization is not None else []))
        if not all(isinstance(text, str) and len(text) <= 512 for text in texts) or not (
            size is None or type(size) is int
        ):
            raise ValueError("a description of a model that is none")
        digests = tuple(str(digest)[:64] for digest in data["digests"])
        return Compared(name, architecture, quantization, size, digests)


@dataclass(frozen=True, slots=True)
class Verification:
    """`tokens` were run through both models; of them `divergence` scores the second half of each
    chunk. `divergence` is None where the two could not be compared, `routing` also for dense
    models. `seconds` by stage."""

    candidate: Compared
    reference: Compared
    findings: tuple[Finding, ...]
    policy: Policy
    tokens: int = 0
    domains: tuple[str, ...] = ()
    divergence: Divergence | None = None
    routing: PairedRouting | None = None
    repetition: Repetition | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(self.findings)

    def to_json(self) -> dict[str, Any]:
        """As docs/reference/json.md describes."""
        return {
            "verdict": str(self.verdict),
            "tokens": self.tokens,
            "divergence": self.divergence.to_json() if self.divergence else None,
            "routing": self.routing.to_json() if self.routing else None,
            "repetition": self.repetition.to_json() if self.repetition else None,
            "findings": [finding.to_json() for finding in self.findings],
            "candidate": self.candidate.to_json(),
            "reference": self.reference.to_json(),
            "domains": list(self.domains),
            "policy": self.policy.to_json(),
            "seconds": self.seconds,
        }
