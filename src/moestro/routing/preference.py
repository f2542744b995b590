"""Which experts a kind of text prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Preference:
    """`lift` [domains, experts]: how much busier an expert is in a domain than in all the text
    together (1 = the same, 0 = never there; NaN where it was never selected at all).

    `information` is the mutual information of domain and expert in nats: how much the expert of one
    selection tells of the domain, less what chance alone makes of it; None if no domain has two
    groups of chunks, so that chance is not known. `information_raw` is it before that.
    """

    domains: tuple[str, ...]
    lift: Floats
    information: float | None
    information_raw: float

    def favourites(self, domain: str, most: int = 5) -> list[tuple[int, float]]:
        """Experts with the highest lift in `domain`, and that lift; only such as gain by it."""
        lift = np.nan_to_num(self.lift[self.domains.index(domain)], nan=0.0)
        order = np.argsort(-lift, kind="stable")[:most]
        return [(int(expert), float(lift[expert])) for expert in order if lift[expert] > 1]

    def to_json(self) -> dict[str, Any]:
        return {
            "information": self.information,
            "information_raw": self.information_raw,
            "favourites": {
                domain: [{"expert": e, "lift": lift} for e, lift in self.favourites(domain)]
                for domain in self.domains
            },
        }


def preference(groups: Sequence[str], counts: Floats) -> Preference | None:
    """From each group's domain and its selections [groups, experts]; None with a single domain.

    I(D;E) = Σ p(d,e) ln(p(d,e) / (p(d)·p(e))) of counts is too high by (D−1)(E−1)/2N for N
    independent selections (Miller 1955; Panzeri and Treves 1996). Selections of one chunk are not
    independent: N is divided by their dispersion within domains, as Rao and Scott (1984) correct a
    χ² for a cluster sample.
    """
    selected = counts.sum(axis=1) > 0
    names = np.asarray(groups, dtype=object)[selected]
    counts = counts[selected]
    domains = tuple(sorted(set(names.tolist())))
    if len(domains) < 2:
        return None
    by_domain = np.stack([counts[names == domain].sum(axis=0) for domain in domains])
    total = float(by_domain.sum())
    even = np.outer(by_domain.sum(axis=1), by_domain.sum(axis=0)) / total
    lift = np.divide(by_domain, even, out=np.full(even.shape, np.nan), where=even > 0)
    logs = np.log(np.where(by_domain > 0, lift, 1.0))
    raw = max(float((by_domain * logs).sum()) / total, 0.0)
    dispersion = _dispersion([counts[names == domain] for domain in domains])
    if dispersion is None:
        return Preference(domains, lift, None, raw)
    seen = int(np.count_nonzero(by_domain.sum(axis=0)))
    chance = dispersion * (len(domains) - 1) * (seen - 1) / (2 * total)
    return Preference(domains, lift, max(raw - chance, 0.0), raw)


def _dispersion(groups_of_domains: Sequence[Floats]) -> float | None:
    """Pearson's χ² of groups within their domain over its degrees of freedom: 1 for independent
    selections. None if nothing could vary."""
    square, freedom = 0.0, 0
    for counts in groups_of_domains:
        seen = counts[:, counts.sum(axis=0) > 0]
        expected = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()
        square += float(((seen - expected) ** 2 / expected).sum())
        freedom += (len(seen) - 1) * (seen.shape[1] - 1)
    return square / freedom if freedom else None
