"""Which of the engine's devices are used, and how its number of each is found."""

from __future__ import annotations

import pytest

from moestro.engine.llama_cpp import devices
from moestro.engine.llama_cpp.devices import EngineDevices, engine_devices, engine_gpu_count

CPU, GPU, INTEGRATED, ACCELERATOR = 0, 1, 2, 3


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ([CPU], EngineDevices(0, ())),
        ([GPU, GPU, CPU], EngineDevices(2, (0, 1))),
        ([INTEGRATED, GPU, CPU], EngineDevices(2, (1,))),
        ([INTEGRATED, CPU], EngineDevices(1, (0,))),
        ([GPU, ACCELERATOR, CPU], EngineDevices(2, (0,))),
    ],
)
def test_integrated_gpus_count_where_there_is_no_other(
    kinds: list[int], found: EngineDevices
) -> None:
    assert EngineDevices.of(kinds) == found


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("3 0 2", EngineDevices(3, (0, 2))),
        ("a driver's words\n1 0", EngineDevices(1, (0,))),
        ("nothing", EngineDevices()),
        ("", EngineDevices()),
    ],
)
def test_the_answer_of_the_child(
    printed: str, found: EngineDevices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "child_command", lambda _: ["printf", printed])
    assert engine_devices() == found
    assert engine_gpu_count() == len(found.gpus)


def test_a_child_that_fails_leaves_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "child_command", lambda _: ["sh", "-c", "echo 2 0 1; exit 1"])
    assert engine_devices() == EngineDevices()


def test_the_engine_that_is_installed_has_a_processor(capfd: pytest.CaptureFixture[str]) -> None:
    assert devices.main() == 0
    cpu, *gpus = map(int, capfd.readouterr().out.split())
    assert cpu not in gpus
