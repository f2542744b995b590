from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine import EngineRequest, registry
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.engine.llama_cpp.version import installed_version
from moestro.engine.registry import EMBEDDED, EngineInfo, engine_named, engines, needs
from moestro.engine.start import make_engine
from moestro.errors import EngineError, UsageError
from moestro.planning import Settings
from tests.engine.llama_server.fake import write_server

SETTINGS = Settings(context=1, parallel=2, threads=1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a data folder and a PATH of its own, and nothing in them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("MOESTRO_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("moestro.engine.build.record.built_engines", lambda: ())
    return tmp_path


def built(program: Path) -> EngineInfo:
    return EngineInfo("ik_llama.cpp-1", "ik_llama.cpp", "1", "built", program)


def test_the_embedded_one_is_always_first(here: Path) -> None:
    (only,) = engines()
    assert (only.id, only.family, only.version) == (EMBEDDED, "llama.cpp", installed_version())
    assert engine_named(EMBEDDED) == only
    assert only.runs("qwen35moe") is True
    assert only.runs("bitnet-25") is False
    assert only.runs("of tomorrow") is None
    assert replace(only, architectures=None).runs("qwen35moe") is None


def test_built_ones_and_the_one_on_the_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_server(here / "bin")
    mine = built(here / "elsewhere")
    monkeypatch.setattr("moestro.engine.build.record.built_engines", lambda: (mine,))
    _, first, second = engines()
    assert first is mine is engine_named(mine.id)
    assert (second.id, second.origin) == (str(program), "path")
    assert engine_named("llama-server") == second
    # A link to a built one is that one.
    monkeypatch.setattr("moestro.engine.build.record.built_engines", lambda: (built(program),))
    assert [info.origin for info in engines()] == ["embedded", "built"]


def test_another_program_of_that_name_is_no_engine(here: Path) -> None:
    program = write_server(here / "bin", help_text="usage: something else")
    assert [info.origin for info in engines()] == ["embedded"]
    with pytest.raises(EngineError, match="is not a llama-server"):
        engine_named(str(program))


def test_without_the_embedded_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.engine.llama_cpp.version.PACKAGE", "no-such-package")
    assert engines() == ()


def test_a_name_that_nobody_has(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = built(here)
    monkeypatch.setattr("moestro.engine.build.record.built_engines", lambda: (mine,))
    with pytest.raises(UsageError, match=r"no engine ik_llama\.cpp-2") as caught:
        engine_named("ik_llama.cpp-2")
    assert caught.value.hint is not None
    assert "Did you mean ik_llama.cpp-1?" in caught.value.hint
    assert "embedded, ik_llama.cpp-1" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        (SETTINGS, set()),
        (replace(SETTINGS, mtp_depth=1, ngram="mod"), {"mtp", "ngram"}),
        (replace(SETTINGS, unified=True), {"unified"}),
        (replace(SETTINGS, unified=True, parallel=1), set()),
        (replace(SETTINGS, repack=False, load_mode="mmap"), {"repack", "load-mode"}),
        (replace(SETTINGS, expert_cache_bytes=1), {"expert-cache"}),
    ],
)
def test_needs(settings: Settings, features: set[str]) -> None:
    assert needs(settings) == features


def test_the_settings_name_the_engine_that_is_made(here: Path) -> None:
    request = EngineRequest(Path("m.gguf"), "m", SETTINGS)
    assert isinstance(make_engine(request), LlamaCppEngine)
    for name in ("nobody", str(here / "absent")):
        other = replace(request, settings=replace(SETTINGS, engine=name))
        with pytest.raises((UsageError, EngineError), match="There is no"):
            make_engine(other)


def test_every_need_is_a_feature_with_words() -> None:
    every = replace(
        SETTINGS, mtp_depth=1, ngram="mod", unified=True, parallel=2, repack=False,
        load_mode="none", expert_cache_bytes=1,
    )  # fmt: skip
    assert needs(every) | {registry.SYNTHETIC_ACCEPTANCE} == set(registry.FEATURES)
    assert all(" " in words for words in registry.FEATURES.values())
