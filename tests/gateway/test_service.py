from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from moestro.engine import EngineRequest, EngineState
from moestro.errors import EngineError, EngineStartFailed, UsageError
from moestro.gateway.queue import Ticket
from moestro.gateway.service import Note, Service
from tests.gateway.conftest import until
from tests.gateway.stub_engine import StubEngine, StubMaker, maker_of, stub_request


def refusal_code(service: Service) -> str:
    refusal = service.refusal()
    assert refusal is not None
    assert refusal.status == 503
    assert refusal.retry_after_seconds is not None
    return refusal.code


async def test_a_life_from_start_to_stop() -> None:
    service = Service(maker_of(StubEngine(start_seconds=0.1)), stub_request())
    assert service.status.state is EngineState.STARTING
    assert refusal_code(service) == "engine_starting"
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    assert refusal_code(service) == "engine_starting"
    await starting
    assert service.status.state is EngineState.READY
    assert service.refusal() is None
    assert service.model.context_length == 480
    await service.stop()
    assert service.status.state is EngineState.STOPPED
    assert refusal_code(service) == "shutting_down"


async def test_an_engine_that_dies_is_noticed_without_asking_it() -> None:
    engine = StubEngine()
    service = Service(maker_of(engine), stub_request())
    await service.start()
    await engine.kill()
    assert service.status.state is EngineState.FAILED
    assert refusal_code(service) == "engine_gone"
    await until(lambda: service.status.state is EngineState.READY)
    assert service.restarts == 1
    await service.stop()


async def test_an_engine_that_does_not_start() -> None:
    service = Service(maker_of(StubEngine(fails="no memory")), stub_request())
    with pytest.raises(EngineStartFailed, match="no memory"):
        await service.start()
    assert service.status.state is EngineState.FAILED
    assert refusal_code(service) == "engine_gone"
    await service.stop()


async def test_stopping_while_it_loads() -> None:
    service = Service(maker_of(StubEngine(start_seconds=60)), stub_request())
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
    service = Service(maker_of(engine), stub_request())
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
    service = Service(maker_of(engine), stub_request())
    await service.stop()
    with pytest.raises(EngineStartFailed, match="stopped before"):
        await service.start()
    assert engine.address == ""


async def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    service = Service(maker_of(StubEngine()), stub_request())
    await service.stop()
    await service.stop()
    started = Service(maker_of(StubEngine()), stub_request())
    await started.start()
    await started.stop()
    await started.stop()


async def test_a_state_that_the_engine_reports_first_counts() -> None:
    """Between the death of an engine and the end of its watch nothing may be sent to it."""
    engine = StubEngine()
    service = Service(maker_of(engine), stub_request())
    await service.start()
    engine.state = EngineState.FAILED
    assert refusal_code(service) == "engine_gone"
    await service.stop()


async def test_one_that_died_is_followed_at_once_and_one_that_never_came_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.service.FIRST_DELAY_SECONDS", 0.05)
    maker = StubMaker({}, {}, {"fails": "no luck"}, {"fails": "no luck"})
    said: list[str | None] = []

    def make(request: EngineRequest) -> StubEngine:
        said.append(service.status.reason)
        return maker(request)

    service = Service(make, stub_request())
    await service.start()
    await maker.made[0].kill()
    await until(lambda: service.restarts == 1 and service.status.state is EngineState.READY)
    began = time.monotonic()
    await maker.made[1].kill()
    await until(lambda: len(maker.made) == 4)
    await until(lambda: service.status.state is EngineState.FAILED)
    assert "next try" in (service.status.reason or "")
    await until(lambda: service.status.state is EngineState.READY)
    assert time.monotonic() - began >= 0.05 + 0.1, "the second wait is twice the first one"
    assert len(maker.made) == 5
    assert said[3] == said[4] == "no luck", "the next try is no longer to come"
    assert [note.state for note in service.notes if note.engine == 3] == [EngineState.FAILED]
    await service.stop()


@pytest.mark.parametrize("delay", [0.05, 60.0])
async def test_a_service_whose_engine_does_not_start_takes_another_plan(
    monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    monkeypatch.setattr("moestro.gateway.service.FIRST_DELAY_SECONDS", delay)
    maker = StubMaker({}, *({"fails": "a broken driver"} for _ in range(2)))
    service = Service(maker, stub_request())
    await service.start()
    await maker.made[0].kill()
    await until(lambda: "next try" in (service.status.reason or ""))
    async with asyncio.timeout(10):
        if delay > 1:
            with pytest.raises(EngineStartFailed, match="broken driver"):
                await service.replace(stub_request(parallel=5), because="a try that fails as well")
            assert service.request.settings.parallel == 2
        else:
            await until(lambda: len(maker.made) == 3)
        await service.replace(stub_request(parallel=7), because="a better plan")
    assert service.status.state is EngineState.READY
    assert service.model.parallel == 7
    await service.stop()


async def test_an_order_to_a_service_that_stops_meanwhile_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.service.FIRST_DELAY_SECONDS", 60.0)
    maker = StubMaker({}, {"fails": "a broken driver"}, {"start_seconds": 60.0})
    service = Service(maker, stub_request())
    await service.start()
    await maker.made[0].kill()
    await until(lambda: "next try" in (service.status.reason or ""))
    tried = asyncio.create_task(service.replace(stub_request(parallel=7), because="a try"))
    waits = asyncio.create_task(service.replace(stub_request(parallel=8), because="another"))
    await until(lambda: len(maker.made) == 3)
    async with asyncio.timeout(10):
        await service.stop()
        for order in (tried, waits):
            with pytest.raises(EngineStartFailed, match="stopped before"):
                await order


async def test_an_engine_that_cannot_be_made_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its file is gone, or its build: not the engine says so, but whoever makes it."""
    monkeypatch.setattr("moestro.gateway.service.FIRST_DELAY_SECONDS", 0.05)
    maker = StubMaker()
    fails = 0

    def make(request: EngineRequest) -> StubEngine:
        nonlocal fails
        if fails:
            fails -= 1
            raise UsageError("The model's file is gone.")
        return maker(request)

    service = Service(make, stub_request())
    await service.start()
    fails = 1
    await maker.made[0].kill()
    await until(lambda: "file is gone" in (service.status.reason or ""))
    await until(lambda: service.status.state is EngineState.READY)
    fails = 1
    with pytest.raises(UsageError, match="file is gone"):
        await service.replace(because="a test")
    assert service.status.state is EngineState.READY
    await service.stop()


async def test_a_replacement_beside_the_old_one_leaves_no_gap() -> None:
    maker = StubMaker({}, {"start_seconds": 0.2})
    service = Service(maker, stub_request(), fits_beside=lambda _: True)
    await service.start()
    replacing = asyncio.create_task(service.replace(because="a test"))
    await until(lambda: len(maker.made) == 2)
    assert service.status.state is EngineState.READY
    assert service.refusal() is None
    await replacing
    assert service.engine is maker.made[1]
    await until(lambda: maker.made[0].state is EngineState.STOPPED)
    assert service.restarts == 0
    await service.stop()


async def test_a_replacement_that_does_not_start_leaves_the_old_one() -> None:
    for beside in (True, False):
        maker = StubMaker({}, {"fails": "wrong plan"})
        service = Service(maker, stub_request(), fits_beside=lambda _, b=beside: b)  # type: ignore[misc]
        await service.start()
        other = stub_request(parallel=7)
        with pytest.raises(EngineStartFailed, match="wrong plan"):
            await service.replace(other, because="a new plan")
        await until(lambda s=service: s.status.state is EngineState.READY)  # type: ignore[misc]
        assert service.request.settings.parallel == 2
        assert maker.asked[-1].settings.parallel == (7 if beside else 2)
        await service.stop()


async def test_a_replacement_brings_its_own_settings() -> None:
    maker = StubMaker()
    service = Service(maker, stub_request(), fits_beside=lambda _: True)
    await service.start()
    await service.replace(stub_request(parallel=7), because="a new plan")
    assert service.model.parallel == 7
    await maker.made[1].kill()
    await until(lambda: service.restarts == 1 and service.status.state is EngineState.READY)
    assert maker.asked[2].settings.parallel == 7, "it is what restarts from now on"
    await service.stop()


async def test_settings_are_stepped_down_where_the_start_ran_out_of_memory() -> None:
    def milder(request: EngineRequest, error: EngineError) -> tuple[EngineRequest, str] | None:
        if "memory" not in error.sentence or request.settings.ubatch <= 128:
            return None
        settings = replace(request.settings, ubatch=request.settings.ubatch // 2)
        return replace(request, settings=settings), f"ubatch is {settings.ubatch} now."

    maker = StubMaker({"fails": "no memory"}, {"fails": "no memory"})
    said: list[Note] = []
    service = Service(maker, stub_request(), milder=milder, on_note=said.append)
    await service.start()
    assert [asked.settings.ubatch for asked in maker.asked] == [512, 256, 128]
    assert [note.text for note in said if note.engine == 0] == [
        "ubatch is 256 now.",
        "ubatch is 128 now.",
    ]
    assert service.request.settings.ubatch == 128
    await service.stop()


async def test_a_stop_ends_all_engines_whatever_they_are_doing() -> None:
    maker = StubMaker({}, {"start_seconds": 60})
    service = Service(maker, stub_request(), fits_beside=lambda _: True)
    await service.start()
    replacing = asyncio.create_task(service.replace(because="a test"))
    await until(lambda: len(maker.made) == 2)
    async with asyncio.timeout(5):
        await service.stop()
    assert [engine.state for engine in maker.made] == [EngineState.STOPPED] * 2
    with pytest.raises(EngineStartFailed):
        await replacing


async def test_a_replacement_beside_lets_answers_finish_and_cuts_those_that_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.service.HAND_OVER_SECONDS", 0.2)
    maker = StubMaker()
    service = Service(maker, stub_request(), fits_beside=lambda _: True)
    await service.start()
    assert service.life is not None
    service.life.begin()
    await service.replace(because="a test")
    assert service.engine is maker.made[1]
    assert "1 requests go on with the next engine" in [note.text for note in service.notes]
    await service.stop()


# Idle engines


async def test_an_idle_engine_is_unloaded_and_the_next_request_brings_another() -> None:
    maker = StubMaker()
    service = Service(maker, stub_request(), unload_seconds=0.1)
    await service.start()
    for lives in (1, 2):
        assert service.life is not None
        await until(lambda: service.status.state is EngineState.SLEEPING)
        assert maker.made[-1].state is EngineState.STOPPED
        assert service.refusal() is None, "requests are served"
        assert len(maker.made) == lives
        async with service.queue.turn(Ticket()) as life:
            assert life.ready
            assert len(maker.made) == lives + 1
            await asyncio.sleep(0.3)  # an engine that works is not idle
            assert service.status.state is EngineState.READY
    assert service.restarts == 0
    await service.stop()


async def test_a_sleeping_service_may_be_replaced_and_stopped() -> None:
    maker = StubMaker()
    service = Service(maker, stub_request(), unload_seconds=0.05)
    await service.start()
    await until(lambda: service.status.state is EngineState.SLEEPING)
    await service.replace(stub_request(parallel=7), because="a new plan")
    assert service.model.parallel == 7
    await until(lambda: service.status.state is EngineState.SLEEPING)
    async with asyncio.timeout(5):
        await service.stop()
    assert service.status.state is EngineState.STOPPED


async def test_an_engine_that_does_not_wake_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.service.FIRST_DELAY_SECONDS", 0.05)
    maker = StubMaker({}, {"fails": "not now"})
    service = Service(maker, stub_request(), unload_seconds=0.05)
    await service.start()
    await until(lambda: service.status.state is EngineState.SLEEPING)
    async with service.queue.turn(Ticket()) as life:
        assert life.engine is maker.made[2]
    await service.stop()
