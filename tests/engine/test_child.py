"""The environment of engines."""

from __future__ import annotations

from moestro.engine.child import SHORT_SPIN, SPIN, child_environment


def test_threads_wait_awake_unless_another_engine_computes_beside() -> None:
    assert child_environment({})["GOMP_SPINCOUNT"] == SPIN
    assert child_environment({}, beside_another=True)["GOMP_SPINCOUNT"] == SHORT_SPIN
    assert int(SHORT_SPIN) < int(SPIN)


def test_the_users_own_environment_wins() -> None:
    own = {"GOMP_SPINCOUNT": "7", "PATH": "p"}
    for beside in (False, True):
        found = child_environment(own, beside_another=beside)
        assert (found["GOMP_SPINCOUNT"], found["PATH"]) == ("7", "p")
        assert found["GGML_NO_BACKTRACE"] == "1"
