from __future__ import annotations

import math

import pytest

from moestro.planning.settings import Settings
from moestro.tune.axis import Axis, Value
from moestro.tune.statistics import Ratio
from moestro.tune.wording import in_words, settings_changed

SOME = Settings(context=1024, parallel=1, threads=4)


def test_a_clear_gain_in_words() -> None:
    said = in_words("ubatch 256", "ubatch 512", Ratio(math.log(1.12), 0.01, 60, 5, False))
    assert said == "ubatch 256: 12 % faster than ubatch 512 (9.8–14 %), measured in 5 pairs"


def test_a_loss_and_a_doubt_in_words() -> None:
    lost = in_words("a", "b", Ratio(math.log(0.8), 0.01, 60, 1, False))
    assert lost.startswith("a: 20 % slower than b (18–22 %)")
    assert lost.endswith("1 pair")
    open_ = in_words("a", "b", Ratio(math.log(1.02), 0.02, 60, 3, False))
    assert "(−2.0 to +6.2 %)" in open_
    assert "no different from b" in in_words("a", "b", Ratio(0.001, 0.01, 60, 3, False))


def test_values_move_nothing_else() -> None:
    fewer = Value.of("2 threads", threads=2)
    assert fewer.at(SOME).threads_batch == 4  # those that read stay
    assert settings_changed(SOME, fewer.at(SOME)) == ("threads", "threads_batch")
    reading = Value.of("4 to read", threads_batch=4)
    assert reading.holds(SOME)
    assert reading.at(SOME) == SOME
    assert not reading.holds(Value.of("2 to read", threads_batch=2).at(SOME))


def test_an_axis_knows_its_values() -> None:
    with pytest.raises(ValueError, match="thread_count"):
        Value.of("x", thread_count=2)
    axis = Axis("ubatch", (Value.of("a", ubatch=256), Value.of("b", ubatch=512)), prompt_gain=0.2)
    assert axis.place(SOME) == 1
    assert axis.promise(0.5) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no value c"):
        Axis("ubatch", axis.values, first=("c",))
