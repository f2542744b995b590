from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.verify.repetition import Loop, compare_repetition, find_loop, repeated_share

FRESH = list(range(100, 140))


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([1, 2, 3, 4], 0),
        # Five 4-grams: 1234 2341 3412 4123 1234, of which the last is known.
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),
        ([5] * 10, 6 / 7),
        (FRESH, 0),
    ],
)
def test_the_share_of_known_ngrams(tokens: list[int], share: float) -> None:
    assert repeated_share(tokens) == pytest.approx(share)


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        (FRESH, None),
        ([7, 7, 7, *FRESH], None),
        ([1, 2, 3, 4, 5, 6] * 2, None),
        ([9, *[1, 2, 3] * 4], Loop(3, 4, at_end=True)),
        ([9, *[1, 2, 3] * 4, 1, 2], Loop(3, 14 / 3, at_end=True)),
        ([*[1, 2, 3] * 5, *FRESH], Loop(3, 5, at_end=False)),
        ([4] * 12, Loop(1, 12, at_end=True)),
        ([*[1, 2] * 6, 50, 51, *[3] * 20], Loop(1, 20, at_end=True)),
    ],
)
def test_loops_are_found(tokens: list[int], loop: Loop | None) -> None:
    assert find_loop(tokens) == loop


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(12, 20),
    st.lists(st.integers(10, 99), unique=True, max_size=20),
)
def test_a_planted_loop_is_found_at_the_end(turn: list[int], turns: int, before: list[int]) -> None:
    loop = find_loop([*before, *turn * turns])
    assert loop is not None
    assert loop.at_end
    assert len(turn) % loop.period == 0
    assert loop.period * loop.turns >= len(turn) * turns


def test_repeating_as_much_as_the_reference_is_no_excess() -> None:
    looping = [[1, 2, 3] * 10, FRESH, [8] * 30, [*FRESH, *FRESH], FRESH, FRESH]
    found = compare_repetition(looping, looping)
    assert found is not None
    assert (found.excess.value, found.excess.low, found.excess.high) == (0, 0, 0)
    assert found.loops_excess.value == 0
    assert found.candidate == found.reference
    assert found.reference.ending_in_loop == pytest.approx(2 / 6)
    assert found.reference.longest_loop == Loop(1, 30, at_end=True)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_candidate_that_loops_where_the_reference_does_not_is_seen() -> None:
    reference = [[prompt * 100 + token for token in range(48)] for prompt in range(16)]
    candidate = [[*tokens[:12], *tokens[8:12] * 9] for tokens in reference]
    found = compare_repetition(candidate, reference)
    assert found is not None
    assert found.excess.low is not None
    assert found.excess.low > 0.5
    assert found.loops_excess.value == 1


def test_pairs_only() -> None:
    assert compare_repetition([], []) is None
    with pytest.raises(ValueError, match="2 generations against 1"):
        compare_repetition([[1], [2]], [[1]])
