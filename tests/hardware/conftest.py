from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing here reads or writes what was measured on the machine that runs the tests."""
    folder = tmp_path / "data"
    monkeypatch.setenv("MOESTRO_DATA", str(folder))
    return folder
