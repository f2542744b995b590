from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moestro.engine import architectures
from moestro.engine.llama_cpp.binding import library_path
from moestro.engine.llama_server import probe as module
from moestro.engine.llama_server.probe import ask, probe
from moestro.engine.registry import FEATURES, LOAD_MODE, MTP, NGRAM, REPACK
from moestro.errors import EngineError
from tests.engine.llama_server.fake import write_server


def test_llama_cpps_own(tmp_path: Path) -> None:
    info = probe(write_server(tmp_path, version="6 (build 11549)"))
    assert (info.family, info.version, info.origin) == ("llama.cpp", "6 (build 11549)", "given")
    assert info.features == frozenset(FEATURES)
    assert info.devices == ("CUDA0",)
    assert info.id == str(info.program) == str(tmp_path / "llama-server")
    assert info.architectures is None  # a shell script has no names in it


def test_ik_llama_cpps(tmp_path: Path) -> None:
    info = probe(write_server(tmp_path, family="ik_llama.cpp"), origin="path")
    assert (info.family, info.origin) == ("ik_llama.cpp", "path")
    assert info.features == {MTP, NGRAM, REPACK, LOAD_MODE}


def test_an_older_one_can_do_less(tmp_path: Path) -> None:
    few = "--model --ctx-size --parallel --port --api-key-file --no-mmap"
    assert probe(write_server(tmp_path, help_text=few)).features == {LOAD_MODE}


def test_it_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("LLAMA_ARG_PORT", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    probe(write_server(tmp_path))
    seen = json.loads((tmp_path / "probed.json").read_text())
    assert not {"HF_TOKEN", "LLAMA_ARG_PORT"} & set(seen)
    assert seen["CUDA_VISIBLE_DEVICES"] == "0"
    assert seen["PATH"] == os.environ["PATH"]


def test_a_program_that_changes_is_asked_again(tmp_path: Path) -> None:
    program = write_server(tmp_path)
    assert ask(program).family == "llama.cpp"
    write_server(tmp_path, family="ik_llama.cpp")
    program.write_text(program.read_text() + "\n# another\n")
    assert ask(program).family == "ik_llama.cpp"


@pytest.mark.parametrize(
    ("behaviour", "said"), [("hangs", "did not answer within 0.5 s"), ("crashes", "it crashes")]
)
def test_bad_programs(
    tmp_path: Path, behaviour: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.5 if behaviour == "hangs" else 20)
    with pytest.raises(EngineError, match=said) as caught:
        probe(write_server(tmp_path, behaviour=behaviour))
    assert "is not a llama-server" in caught.value.sentence


def test_what_is_no_llama_server(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="There is no llama-server at"):
        probe(tmp_path / "absent")
    for text, mode in (("#!/bin/sh\necho hello\n", 0o755), ("no program", 0o644)):
        file = tmp_path / f"file{mode}"
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(EngineError, match="is not a llama-server"):
            probe(file)
    with pytest.raises(EngineError, match="is not a llama-server"):
        probe(tmp_path)


def test_what_anybody_may_change_is_not_run(tmp_path: Path) -> None:
    program = write_server(tmp_path)
    program.chmod(0o757)
    with pytest.raises(EngineError, match="everyone may change it"):
        probe(program)
    assert not (tmp_path / "probed.json").exists()


def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 30)
    with pytest.raises(EngineError, match="does not have its options"):
        probe(write_server(tmp_path))


def test_architectures_of_a_binary(tmp_path: Path) -> None:
    """Between zero bytes, or as the end of another text, as linkers keep them."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\0qwen3moe\0nomic-bert\0Qwen2\0olmoe-and-more\0\xff\0")
    assert architectures.found_in([binary]) == {"qwen3moe", "nomic-bert", "bert"}
    empty = tmp_path / "empty"
    empty.touch()
    assert architectures.found_in([empty, tmp_path / "absent"]) == frozenset()


def test_the_embedded_engines_architectures_are_in_it(tmp_path: Path) -> None:
    """They stand together; to look through all of the library takes seconds."""
    library = library_path().read_bytes()
    one = library.index(b"\0granitehybrid\0")
    part = tmp_path / "part"
    part.write_bytes(library[one - (3 << 20) : one + (3 << 20)])
    assert architectures.found_in([part]) >= architectures.EMBEDDED
