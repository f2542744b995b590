from __future__ import annotations

import os
from pathlib import Path

from moestro.gateway.served_model import ServedModel
from tests.gateway.stub_engine import stub_request


def test_names_that_a_client_may_use() -> None:
    model = ServedModel.of(stub_request("qwen", "/models/Qwen3-30B-Q4_K_M.gguf"))
    for name in ("qwen", "Qwen3-30B-Q4_K_M", "default", None):
        assert model.answers_to(name)
    for name in ("", "Qwen", "qwen3-30b-q4_k_m", "Qwen3-30B-Q4_K_M.gguf", "gpt-4"):
        assert not model.answers_to(name)


def test_a_split_model_is_known_without_its_part_number() -> None:
    model = ServedModel.of(stub_request("v3", "/models/V3-Q4-00001-of-00009.gguf"))
    assert model.aliases == ("V3-Q4", "default")


def test_what_only_looks_like_a_part_keeps_its_name() -> None:
    model = ServedModel.of(stub_request("v3", "/models/V3-00009-of-00002.gguf"))
    assert model.aliases == ("V3-00009-of-00002", "default")


def test_a_name_that_no_client_could_send_gets_one_that_it_can() -> None:
    model = ServedModel.of(stub_request("a\udce9", "/models/b\udce9-00001-of-00002.gguf"))
    assert model.names == ("a\ufffd", "b\ufffd", "default")
    same = ServedModel.of(stub_request("a\udce9", "/models/a\udce9.gguf"))
    assert same.names == ("a\ufffd", "default")


def test_no_name_is_listed_twice() -> None:
    assert ServedModel.of(stub_request("a", "/models/a.gguf")).names == ("a", "default")
    assert ServedModel.of(stub_request("default", "/m/default.gguf")).names == ("default",)


def test_created_is_the_file_s_date(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.touch()
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert ServedModel.of(stub_request(model=str(path))).created == 1_700_000_000


def test_an_unknown_limit_is_null() -> None:
    listed = ServedModel.of(stub_request()).to_json()
    assert listed["context_length"] is None
    assert listed["parallel"] == 2
    assert listed["owned_by"] == "moestro"
