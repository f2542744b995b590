"""The life of one engine is a line."""

from __future__ import annotations

import asyncio

import pytest

from moestro.engine import EngineState
from moestro.errors import EngineStartFailed
from moestro.gateway.life import NEXT, Life
from tests.gateway.conftest import until
from tests.gateway.stub_engine import StubEngine, stub_request


def a_life(engine: StubEngine) -> tuple[Life, list[EngineState]]:
    seen: list[EngineState] = []
    life = Life(1, engine, stub_request(), lambda one, _why: seen.append(one._state))
    return life, seen


async def test_from_start_to_stop() -> None:
    life, seen = a_life(StubEngine())
    assert life.state is EngineState.STARTING
    await life.start()
    assert life.state is EngineState.READY
    life.drain("enough")
    assert life.state is EngineState.DRAINING
    await life.stop("enough")
    await life.ended()
    assert seen == [EngineState.READY, EngineState.DRAINING, EngineState.STOPPED]
    assert not life.crashed


@pytest.mark.parametrize("draining", [False, True])
async def test_a_death_is_noticed(draining: bool) -> None:
    engine = StubEngine()
    life, seen = a_life(engine)
    await life.start()
    if draining:
        life.drain("enough")
    await engine.kill()
    assert life.state is EngineState.FAILED, "before the watch has seen it"
    await life.ended()
    assert seen[-1] is EngineState.FAILED
    assert life.crashed
    assert life.exit is not None
    assert life.exit.signal == "SIGKILL"
    await life.stop("cleaning up")


async def test_a_start_that_fails() -> None:
    life, seen = a_life(StubEngine(fails="no memory"))
    with pytest.raises(EngineStartFailed, match="no memory"):
        await life.start()
    await life.ended()
    assert seen == [EngineState.FAILED]
    assert not life.crashed, "it was never ready"


async def test_drained_means_that_the_last_request_has_left() -> None:
    life, _ = a_life(StubEngine())
    await life.start()
    life.begin()
    assert not await life.drained(0.02)
    waiting = asyncio.create_task(life.drained(10))
    await asyncio.sleep(0.01)
    life.end()
    assert await waiting
    await life.stop("enough")


async def test_an_engine_that_dies_while_it_drains_keeps_nobody_waiting() -> None:
    engine = StubEngine()
    life, _ = a_life(engine)
    await life.start()
    life.begin()
    waiting = asyncio.create_task(life.drained(60))
    await asyncio.sleep(0)
    await engine.kill()
    async with asyncio.timeout(5):
        assert not await waiting
    life.end()
    await until(lambda: life.exit is not None)
    await life.stop("cleaning up")


def test_nothing_leads_back() -> None:
    order = list(NEXT)
    for state, following in NEXT.items():
        assert all(order.index(one) > order.index(state) for one in following)
