from __future__ import annotations

import os

import pytest

from moestro.cli import engine_memory
from moestro.cli.engine_memory import SPARE_BYTES, MemoryReader
from moestro.cli.main import main
from moestro.gateway.growth import DEVICE, HOST, Memory
from moestro.units import GIB, MIB


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.hardware.nvidia_state.nvidia_memory_of", lambda _: None)


def test_the_budget_is_what_was_said_or_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.hardware.process_memory.own_bytes", lambda _: GIB)
    monkeypatch.setattr(engine_memory, "room_bytes", lambda: 3 * GIB - SPARE_BYTES)
    assert MemoryReader(2 * GIB)(1) == {HOST: Memory(GIB, 2 * GIB)}
    assert MemoryReader()(1) == {HOST: Memory(GIB, 4 * GIB - SPARE_BYTES)}


def test_a_gpu_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def memory_of(pid: int) -> tuple[int, int]:
        asked.append(pid)
        return 20 * GIB, 2 * GIB

    monkeypatch.setattr("moestro.hardware.nvidia_state.nvidia_memory_of", memory_of)
    read = MemoryReader()
    for _ in range(5):
        found = read(os.getpid())
    assert found[DEVICE] == Memory(20 * GIB, 22 * GIB - 256 * MIB)
    assert asked == [os.getpid()], "it takes milliseconds"
    read(1)
    assert asked == [os.getpid(), 1], "of another engine nothing is known yet"


@pytest.mark.parametrize("verb", ["up", "serve"])
def test_a_size_that_is_none(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "demo", "--engine-memory", "20G", "--port", "0"]) == 2
    assert "“20G” is not a size" in capsys.readouterr().err
