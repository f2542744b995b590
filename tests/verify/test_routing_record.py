"""What is kept of a verification's routing, for the page of a service."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from moestro.verify.routing_record import routing_record
from moestro.verify.stored import keep_profile, profile_of
from tests.cli.verifications import refused, verification


def test_it_holds_the_loads_of_both() -> None:
    found = verification(layers=3, experts=8)
    assert found.routing is not None
    record = routing_record(found)
    assert record["verdict"] == "pass"
    routing = record["routing"]
    assert (routing["experts"], routing["used"], len(routing["layers"])) == (8, 2, 3)
    for kept, layer in zip(routing["layers"], found.routing.layers, strict=True):
        assert kept["load"] == pytest.approx((layer.load * 8).tolist(), rel=1e-2)
        assert sum(kept["load_reference"]) == pytest.approx(8, abs=0.1)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_model_without_experts_and_one_that_was_not_compared() -> None:
    assert routing_record(verification(layers=0))["routing"] is None
    assert routing_record(refused())["kld_mean"] is None


def test_a_load_of_nothing_is_null() -> None:
    found = verification(layers=1)
    assert found.routing is not None
    found.routing.layers[0].load[:] = np.nan
    record = routing_record(found)
    assert set(record["routing"]["layers"][0]["load"]) == {None}
    json.dumps(record, allow_nan=False)


def test_it_is_found_again_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    path = tmp_path / "model.gguf"
    path.write_bytes(random.Random(7).randbytes(1 << 20))
    assert profile_of([path]) is None
    record = routing_record(verification())
    keep_profile([path], record)
    moved = path.rename(tmp_path / "other.gguf")
    found = profile_of([moved])
    assert found is not None
    assert found.pop("verified_at").startswith("20")
    assert found == record
    moved.write_bytes(b"another")
    assert profile_of([moved]) is None
