"""Tools that pretend, and a data folder of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.engine.build.workshop import FakeTools, fake_tools


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    made = fake_tools(tmp_path / "tools")
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("FAKE_SERVER", str(made.server))
    monkeypatch.setattr(sys, "executable", str(made.folder / "python"))
    for name in ("CC", "CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
