"""Sums over groups of text, as few as memory allows and as many as a bootstrap needs."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

MOST_GROUPS = 64

Key = tuple[str, int]


class GroupSums:
    """Adds up vectors by layer and by group of chunks.

    A group is a run of neighbouring chunks of one domain: chunks that resemble each other stay
    together, which is what an honest interval needs. At first each chunk is a group; when there
    are more than `MOST_GROUPS`, the domain that has most joins its neighbours two by two. All
    layers have the same groups.
    """

    def __init__(self, most: int = MOST_GROUPS) -> None:
        self._most = most
        self._widths: defaultdict[str, int] = defaultdict(lambda: 1)
        self._keys: set[Key] = set()
        self._rows: defaultdict[int, dict[Key, NDArray[np.float64]]] = defaultdict(dict)

    def add(self, layer: int, chunk: int, domain: str, values: NDArray[np.float64]) -> None:
        """`values` always has the same length."""
        key = domain, chunk // self._widths[domain]
        if key not in self._keys:
            self._keys.add(key)
            self._join_until_few()
            key = domain, chunk // self._widths[domain]
        _add(self._rows[layer], key, values)

    @property
    def layers(self) -> list[int]:
        return sorted(self._rows)

    @property
    def domains(self) -> list[str]:
        """Of each group, in the order of the rows of `matrix`."""
        return [domain for domain, _ in sorted(self._keys)]

    def matrix(self, layer: int) -> NDArray[np.float64]:
        """[groups, columns]; zeros where the layer saw nothing of a group."""
        rows = self._rows[layer]
        empty = np.zeros_like(next(iter(rows.values())))
        return np.stack([rows.get(key, empty) for key in sorted(self._keys)])

    def _join_until_few(self) -> None:
        while len(self._keys) > self._most:
            groups = Counter(domain for domain, _ in self._keys)
            domain = max(sorted(groups), key=groups.__getitem__)
            if groups[domain] == 1:
                return
            self._widths[domain] *= 2
            self._keys = {_joined(key, domain) for key in self._keys}
            for layer, rows in self._rows.items():
                joined: dict[Key, NDArray[np.float64]] = {}
                for key, values in rows.items():
                    _add(joined, _joined(key, domain), values)
                self._rows[layer] = joined


def _joined(key: Key, domain: str) -> Key:
    return (domain, key[1] // 2) if key[0] == domain else key


def _add(rows: dict[Key, NDArray[np.float64]], key: Key, values: NDArray[np.float64]) -> None:
    if key in rows:
        rows[key] += values
    else:
        rows[key] = values.copy()
