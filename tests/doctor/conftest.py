from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.running import Outcome, run_all, workshop_in
from tests.doctor.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A healthy machine of its own for each test."""
    return workshop_in(tmp_path / "root")


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What the checks find in every broken set-up."""
    return run_all(tmp_path_factory.mktemp("setups"))
