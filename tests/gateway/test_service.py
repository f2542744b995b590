from __future__ import annotations

import asyncio

import pytest

from moestro.engine import EngineState
from moestro.errors import EngineStartFailed
from moestro.gateway.failure import RequestFailed
from moestro.gateway.service import Service
from tests.gateway.stub_engine import StubEngine, stub_request


def refusal_code(service: Service) -> str:
    with pytest.raises(RequestFailed) as caught:
        service.link()
    assert caught.value.failure.status == 503
    assert caught.value.failure.retry_after_seconds is not None
    return caught.value.failure.code


async def test_a_life_from_start_to_stop() -> None:
    service = Service(StubEngine(start_seconds=0.1), stub_request())
    assert service.status.state is EngineState.STARTING
    assert refusal_code(service) == "engine_starting"
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    assert refusal_code(service) == "engine_starting"
    await starting
    assert service.status.state is EngineState.READY
    assert service.refusal() is None
    assert service.model.context_length == 480
    service.link()
    await service.stop()
    assert service.status.state is EngineState.STOPPED
    assert refusal_code(service) == "shutting_down"


async def test_an_engine_that_dies_is_noticed_without_asking_it() -> None:
    engine = StubEngine()
    service = Service(engine, stub_request())
    await service.start()
    await engine.kill()
    exit_ = await service.ended()
    assert exit_.signal == "SIGKILL"
    await asyncio.sleep(0)
    assert service.status.state is EngineState.FAILED
    assert service.status.reason == exit_.sentence
    assert refusal_code(service) == "engine_gone"
    await service.stop()


async def test_an_engine_that_does_not_start() -> None:
    service = Service(StubEngine(fails="no memory"), stub_request())
    with pytest.raises(EngineStartFailed, match="no memory"):
        await service.start()
    assert service.status.state is EngineState.FAILED
    assert refusal_code(service) == "engine_gone"
    await service.stop()


async def test_stopping_while_it_loads() -> None:
    service = Service(StubEngine(start_seconds=60), stub_request())
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0.01)
    await service.stop()
    with pytest.raises(EngineStartFailed):
        await starting


async def test_a_stop_wins_over_a_start_that_did_not_hear_it() -> None:
    class Busy(StubEngine):
        """Hears of no stop before it is ready."""

        stops = 0

        async def stop(self, grace_seconds: float = 5.0) -> None:
            self.stops += 1
            if self.state is EngineState.READY:
                await super().stop(grace_seconds)

    engine = Busy(start_seconds=0.1)
    service = Service(engine, stub_request())
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0.01)
    await service.stop()
    assert (engine.stops, engine.state) == (1, EngineState.STARTING)
    with pytest.raises(EngineStartFailed, match="stopped before"):
        await starting
    assert (engine.stops, engine.state) == (2, EngineState.STOPPED)
    assert refusal_code(service) == "shutting_down"
    await service.stop()


async def test_a_service_that_was_stopped_starts_no_engine() -> None:
    engine = StubEngine()
    service = Service(engine, stub_request())
    await service.stop()
    with pytest.raises(EngineStartFailed, match="stopped before"):
        await service.start()
    assert engine.address == ""


async def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    service = Service(StubEngine(), stub_request())
    await service.stop()
    await service.stop()
    started = Service(StubEngine(), stub_request())
    await started.start()
    await started.stop()
    await started.stop()


async def test_a_state_that_the_engine_reports_first_counts() -> None:
    """Between the death of an engine and the end of its watch nothing may be sent to it."""
    engine = StubEngine()
    service = Service(engine, stub_request())
    await service.start()
    engine.state = EngineState.FAILED
    assert refusal_code(service) == "engine_gone"
    await service.stop()
