from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.routing.groups import GroupSums

some_chunks = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from("abc")), min_size=1, max_size=60, unique=True
)


def filled(chunks: list[tuple[int, str]], most: int) -> GroupSums:
    sums = GroupSums(most)
    for chunk, domain in chunks:
        for layer in (3, 7):
            sums.add(layer, chunk, domain, np.array([1.0, chunk, layer]))
    return sums


@settings(max_examples=60, deadline=None)
@given(some_chunks)
def test_nothing_is_lost(chunks: list[tuple[int, str]]) -> None:
    sums = filled(chunks, 8)
    assert sums.layers == [3, 7]
    found = sums.matrix(3)
    assert len(found) == len(sums.domains) <= 8
    assert found.sum(axis=0).tolist() == [
        len(chunks), sum(chunk for chunk, _ in chunks), 3 * len(chunks)
    ]  # fmt: skip
    for name in "abc":
        own = found[[domain == name for domain in sums.domains]]
        assert own[:, 0].sum() == sum(domain == name for _, domain in chunks)


def test_each_chunk_is_a_group_while_there_are_few() -> None:
    sums = filled([(chunk, "a") for chunk in range(8)], 8)
    assert sums.matrix(3)[:, 1].tolist() == list(range(8))


def test_neighbours_are_joined_when_there_are_many() -> None:
    sums = filled([(chunk, "a") for chunk in range(9)], 8)
    assert sums.matrix(3)[:, 1].tolist() == [0 + 1, 2 + 3, 4 + 5, 6 + 7, 8]


def test_the_domain_with_most_groups_is_joined_first() -> None:
    sums = filled([(chunk, "a") for chunk in range(7)] + [(100, "b"), (200, "b")], 8)
    assert sums.domains == ["a"] * 4 + ["b"] * 2


def test_layers_may_come_one_after_the_other() -> None:
    sums = GroupSums(4)
    for layer in (3, 7):
        for chunk in range(20):
            sums.add(layer, chunk, "a", np.array([1.0, chunk, layer]))
    assert np.array_equal(sums.matrix(3)[:, :2], sums.matrix(7)[:, :2])
    assert np.array_equal(sums.matrix(3), filled([(n, "a") for n in range(20)], 4).matrix(3))


def test_more_domains_than_groups_stay_apart() -> None:
    sums = GroupSums(2)
    for number, domain in enumerate("abcd"):
        sums.add(0, number, domain, np.ones(1))
    assert sums.matrix(0).tolist() == [[1.0]] * 4


def test_a_layer_that_saw_nothing_of_a_group_has_zeros_there() -> None:
    sums = GroupSums()
    sums.add(0, 0, "a", np.ones(2))
    sums.add(0, 1, "a", np.ones(2))
    sums.add(1, 1, "a", np.ones(2))
    assert sums.matrix(1).tolist() == [[0, 0], [1, 1]]


def test_what_was_added_may_be_used_again() -> None:
    sums, values = GroupSums(), np.ones(1)
    sums.add(0, 0, "a", values)
    values += 1
    sums.add(0, 0, "a", values)
    assert sums.matrix(0).tolist() == [[3.0]]
    assert values.tolist() == [2.0]
