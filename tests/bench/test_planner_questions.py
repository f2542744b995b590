"""The questions put to planners: true file sizes, complete records, peers that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.planner.answers import Answer
from bench.planner.memory_table import errors, percent, recorded_peers
from bench.planner.model_files import MODELS
from bench.planner.peers.environments import ASK, ask
from bench.planner.peers.registry import PEERS, Peer
from bench.planner.questions import QUESTIONS

from moestro.engine.llama_cpp.dry_run import DeviceMemory
from moestro.model import read_model

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "mebibytes"), [("Qwen3-30B-A3B", 17_691), ("Mixtral-8x7B", 27_129)]
)
def test_files_are_as_large_as_the_published_ones(
    name: str, mebibytes: int, tmp_path: Path
) -> None:
    spec = read_model(MODELS[name].write(tmp_path))
    assert sum(spec.bytes_by_type.values()) // MIB == mebibytes


def test_every_question_has_a_model_and_a_name_of_its_own() -> None:
    assert {question.model for question in QUESTIONS} <= MODELS.keys()
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)


def test_every_peer_has_a_recorded_answer_to_every_question() -> None:
    recorded = recorded_peers()
    assert len(recorded) == len(PEERS)
    for said in recorded.values():
        assert said.keys() == {question.name for question in QUESTIONS}
        for answer in said.values():
            assert answer.failed or answer.weights_bytes


def ask_adapter(code: str, folder: Path) -> list[dict[str, Any]]:
    adapter = folder / "adapter.py"
    adapter.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ASK), str(adapter)],
        input='[{"n": 1}, {"n": 2}]',
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


def test_a_peer_that_fails_gives_its_reason(tmp_path: Path) -> None:
    code = """
def answer(question):
    print("thinking aloud")
    if question["n"] == 2:
        raise SystemExit("no such\\n model")
    return {"weights_bytes": 7}
"""
    assert ask_adapter(code, tmp_path) == [
        {"weights_bytes": 7},
        {"failed": "SystemExit: no such model"},
    ]


def test_a_peer_that_is_not_installed_says_so(tmp_path: Path) -> None:
    peer = Peer("absent", "absent==1", "absent", "nothing")
    assert ask(peer, tmp_path, [{}, {}]) == [
        {"failed": "not installed: run with --install"},
        {"failed": "not installed: run with --install"},
    ]


def test_errors_are_relative_to_the_truth_and_unknown_stays_unknown() -> None:
    truth = DeviceMemory("CPU", weights_bytes=100, cache_bytes=10, compute_bytes=10)
    found = errors(Answer(weights_bytes=96, cache_bytes=250), truth)
    assert found == {"weights": pytest.approx(-0.04), "cache": 24.0, "total": None}
    assert [percent(value) for value in found.values()] == ["−4.0%", "**× 25**", "–"]
