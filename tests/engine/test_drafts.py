"""What llama.cpp's log says of drafts."""

from __future__ import annotations

import pytest

from moestro.engine.drafts import acceptance_by_position


def test_acceptance_by_position_weighs_requests_by_their_drafts() -> None:
    log = (
        "slot print_timing: draft acceptance = 0.50000 (   10 accepted /    20 generated), mean",
        "slot print_timing:      acc per pos = (0.600, 0.400)",
        "slot print_timing: draft acceptance = 1.00000 (   60 accepted /    60 generated), mean",
        "slot print_timing:      acc per pos = (1.000, 1.000)",
    )
    assert acceptance_by_position(log, 2) == pytest.approx((0.9, 0.85))
    assert acceptance_by_position(log, 1) == pytest.approx((1.0, 1.0))
    strange = ("acc per pos = (0.5, .)", "draft acceptance = 1 (1 accepted / 9 generated)")
    assert acceptance_by_position((*strange, "acc per pos = (0.5, ., 1)"), 5) == ()
    assert acceptance_by_position(("nothing of the kind",), 1) == ()
