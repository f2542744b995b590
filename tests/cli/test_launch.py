"""A model that is elsewhere is brought here, in one way for every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moestro.cli import launch, tuning, verifying
from moestro.cli.launch import model_here, prepare
from moestro.demo import model_path
from moestro.errors import ModelUnsupported
from moestro.findings import Finding, Severity
from moestro.hardware import this_inventory
from moestro.model import LocalFile, Url, parse_reference
from moestro.planning import Wishes
from tests.model.servers import serving


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MOESTRO_CACHE", str(tmp_path / "cache"))


def test_a_model_of_this_machine_is_read_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    known = launch.read_model
    monkeypatch.setattr(launch, "read_model", lambda at: read.append(at) or known(at))  # type: ignore
    reference = LocalFile(model_path())
    assert Path(model_here(reference, "demo").files[0].location) == model_path()
    assert read == [reference]


def _tune(text: str) -> str:
    return tuning._fetched(text, this_inventory(), Wishes()).files[0].location


def _verify(text: str) -> str:
    given: dict[str, Any] = {"threads": 1, "gpu_layers": None, "cache_type": None}
    return verifying._planned(text, this_inventory(), given).model.files[0].location


def _up(text: str) -> str:
    return str(prepare(text, Wishes()).path)


@pytest.mark.parametrize("verb", [_tune, _verify, _up])
def test_every_verb_fetches_what_is_elsewhere(verb: Any, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    content = model_path().read_bytes()
    (folder / "model.gguf").write_bytes(content)
    with serving(folder) as served:
        text = f"{served.url}/model.gguf"
        assert isinstance(parse_reference(text), Url)
        location = Path(verb(text))
    assert location.is_relative_to(tmp_path / "cache")
    assert location.read_bytes() == content


def test_what_the_engine_cannot_run_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def other_format(text: str) -> Any:
        raise ModelUnsupported(f"{text} holds safetensors; the engine here runs GGUF files.")

    monkeypatch.setattr(launch, "require_gguf", lambda _, text: other_format(text))
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(model_path().read_bytes())
    with serving(folder) as served, pytest.raises(ModelUnsupported):
        model_here(parse_reference(f"{served.url}/model.gguf"), "it")
    assert served.bytes_sent < model_path().stat().st_size


def test_tune_says_which_file_of_a_repository_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Finding(Severity.INFO, "file-chosen", "Q4_K_M was chosen of 3 files")
    reference = LocalFile(model_path())
    monkeypatch.setattr(tuning, "fitting_reference", lambda *_: (reference, chosen))
    model = tuning._fetched("hf:who/what", this_inventory(), Wishes())
    assert chosen in model.findings
