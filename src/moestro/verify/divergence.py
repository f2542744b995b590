"""Divergence over a whole text: sums that stay small whatever the text's length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestro.routing.groups import GroupSums
from moestro.routing.interval import Interval, bootstrap, bootstrap_mean
from moestro.verify.histogram import LogHistogram
from moestro.verify.token_divergence import TokenDivergence, compare_logits

__all__ = [
    "Divergence",
    "DivergenceTally",
    "DomainDivergence",
    "TokenDivergence",
    "compare_logits",
]

_TOKENS, _KLD, _NLL_REFERENCE, _NLL_CANDIDATE, _SAME_TOP = range(5)
_LARGEST_EXPONENT = 700.0
_ONLY = 0
"""Divergence is of the model's output, so the sums have a single layer."""


@dataclass(frozen=True, slots=True)
class DomainDivergence:
    """The same figures over the text of one domain."""

    tokens: int
    kld_mean: float
    top1_agreement: float
    perplexity: float
    perplexity_reference: float

    def to_json(self) -> dict[str, float]:
        return {
            "tokens": self.tokens,
            "kld_mean": self.kld_mean,
            "top1_agreement": self.top1_agreement,
            "perplexity": self.perplexity,
            "perplexity_reference": self.perplexity_reference,
        }


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL divergence in nats per token, agreement as a share, perplexities; None without tokens.

    `tokens` were compared. `not_finite` more were not, because a model gave NaN or infinity there;
    `not_finite_reference` and `not_finite_candidate` say which (one token can count in both).
    `histogram` has edges [n + 1] and counts [n] of the tokens' divergences.
    """

    tokens: int
    not_finite: int
    not_finite_reference: int
    not_finite_candidate: int
    kld_mean: Interval | None
    kld_median: float | None
    kld_p90: float | None
    kld_p99: float | None
    kld_max: float | None
    top1_agreement: Interval | None
    perplexity: float | None
    perplexity_reference: float | None
    perplexity_ratio: Interval | None
    by_domain: dict[str, DomainDivergence]
    histogram: tuple[list[float], list[int]]

    def to_json(self) -> dict[str, object]:
        edges, counts = self.histogram
        return {
            "kld_mean": _value(self.kld_mean),
            "kld_median": self.kld_median,
            "kld_p90": self.kld_p90,
            "kld_p99": self.kld_p99,
            "kld_max": self.kld_max,
            "top1_agreement": _value(self.top1_agreement),
            "perplexity": _finite(self.perplexity),
            "perplexity_reference": _finite(self.perplexity_reference),
            "perplexity_ratio": _value(self.perplexity_ratio),
            "intervals": {
                "kld_mean": _interval(self.kld_mean),
                "top1_agreement": _interval(self.top1_agreement),
                "perplexity_ratio": _interval(self.perplexity_ratio),
            },
            "tokens": self.tokens,
            "not_finite": self.not_finite,
            "not_finite_reference": self.not_finite_reference,
            "not_finite_candidate": self.not_finite_candidate,
            "by_domain": {name: domain.to_json() for name, domain in self.by_domain.items()},
            "histogram": {"edges": edges, "counts": counts},
        }


class DivergenceTally:
    """Adds up what `compare_logits` or `compare_sketch` found in each chunk."""

    def __init__(self) -> None:
        self._sums = GroupSums()
        self._histogram = LogHistogram()
        self._not_finite = [0, 0, 0]

    def add(self, chunk: int, domain: str, tokens: TokenDivergence) -> None:
        """`chunk` is the number of the chunk in the whole text; each is added once."""
        finite = tokens.finite
        self._not_finite[0] += int(np.count_nonzero(~finite))
        self._not_finite[1] += int(np.count_nonzero(~np.isfinite(tokens.nll_reference)))
        self._not_finite[2] += int(np.count_nonzero(~np.isfinite(tokens.nll_candidate)))
        kld = tokens.kld[finite]
        sums = np.array(
            [
                len(kld),
                kld.sum(),
                tokens.nll_reference[finite].sum(),
                tokens.nll_candidate[finite].sum(),
                np.count_nonzero(tokens.same_top[finite]),
            ]
        )
        self._histogram.add(kld)
        self._sums.add(_ONLY, chunk, domain, sums)

    def result(self) -> Divergence:
        """What the tokens so far say; more may be added afterwards."""
        groups = self._sums.matrix(_ONLY) if self._sums.layers else np.zeros((0, 5))
        total = groups.sum(axis=0)
        tokens = int(total[_TOKENS])
        known = self._histogram.total > 0
        return Divergence(
            tokens=tokens,
            not_finite=self._not_finite[0],
            not_finite_reference=self._not_finite[1],
            not_finite_candidate=self._not_finite[2],
            kld_mean=bootstrap_mean(groups[:, _KLD], groups[:, _TOKENS], bounds=(0.0, math.inf)),
            kld_median=self._histogram.quantile(0.5),
            kld_p90=self._histogram.quantile(0.9),
            kld_p99=self._histogram.quantile(0.99),
            kld_max=self._histogram.greatest if known else None,
            top1_agreement=bootstrap_mean(
                groups[:, _SAME_TOP], groups[:, _TOKENS], bounds=(0.0, 1.0)
            ),
            perplexity=_perplexity(total, _NLL_CANDIDATE) if known else None,
            perplexity_reference=_perplexity(total, _NLL_REFERENCE) if known else None,
            perplexity_ratio=_exponential(bootstrap(groups, _log_perplexity_ratio)),
            by_domain=self._by_domain(groups),
            histogram=self._histogram.coarse(),
        )

    def _by_domain(self, groups: NDArray[np.float64]) -> dict[str, DomainDivergence]:
        names = np.array(self._sums.domains)
        found = {}
        for name in sorted(set(self._sums.domains)):
            total = groups[names == name].sum(axis=0)
            if not total[_TOKENS]:
                continue
            found[name] = DomainDivergence(
                tokens=int(total[_TOKENS]),
                kld_mean=float(total[_KLD] / total[_TOKENS]),
                top1_agreement=float(total[_SAME_TOP] / total[_TOKENS]),
                perplexity=_perplexity(total, _NLL_CANDIDATE),
                perplexity_reference=_perplexity(total, _NLL_REFERENCE),
            )
        return found


def _perplexity(total: NDArray[np.float64], column: int) -> float:
    # A broken model's mean can pass what exp holds.
    return math.exp(min(float(total[column] / total[_TOKENS]), _LARGEST_EXPONENT))


def _log_perplexity_ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean difference, token by token of the same text: so it scatters little."""
    tokens = sums[:, _TOKENS]
    difference = sums[:, _NLL_CANDIDATE] - sums[:, _NLL_REFERENCE]
    mean = np.full(len(sums), np.nan)
    np.divide(difference, tokens, out=mean, where=tokens != 0)
    return mean


def _exponential(found: Interval | None) -> Interval | None:
    """A ratio is as likely to be half as to be double: its interval is one of its logarithm."""
    if found is None:
        return None

    def end(value: float) -> float:
        return math.exp(min(value, _LARGEST_EXPONENT))

    low = None if found.low is None else end(found.low)
    high = None if found.high is None else end(found.high)
    return Interval(end(found.value), low, high)


def _value(interval: Interval | None) -> float | None:
    return interval.value if interval else None


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    return interval.to_json() if interval else None


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
