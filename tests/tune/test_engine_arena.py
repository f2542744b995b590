"""The arena of real engines, with engines that a test scripts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from moestro.engine import EngineRequest
from moestro.errors import EngineError
from moestro.load import SCENARIOS
from moestro.planning.settings import Settings
from moestro.tune.arena import Failure, Sample
from moestro.tune.engine_arena import EngineArena
from moestro.tune.workload import Work
from tests.gateway.conftest import until
from tests.gateway.stub_engine import StubEngine, stub_request

SETTINGS = Settings(context=512, parallel=2, threads=1)
GIB = 1 << 30


class Stable:
    """Makes engines and remembers them. `script` is what each of them does with requests."""

    def __init__(self, **script: Any) -> None:
        self.made: list[tuple[Settings, StubEngine]] = []
        self.script = {"tokens": 4, **script}
        self.fails: dict[Settings, str] = {}

    def make(self, request: EngineRequest) -> StubEngine:
        engine = StubEngine(fails=self.fails.get(request.settings))
        engine.script = self.script
        self.made.append((request.settings, engine))
        return engine

    @property
    def running(self) -> list[Settings]:
        return [settings for settings, engine in self.made if engine.state == "ready"]


def arena(stable: Stable, **changes: Any) -> EngineArena:
    options: dict[str, Any] = {
        "needs_bytes": lambda _: GIB,
        "memory_bytes": 8 * GIB,
        "make": stable.make,
        **changes,
    }
    return EngineArena(stub_request(), Work(SCENARIOS["chat"], 1), **options)


async def test_a_try_starts_an_engine_and_the_next_one_uses_it() -> None:
    stable = Stable()
    async with arena(stable) as here:
        first = await here.measure(SETTINGS, part=0, share=0.25)
        second = await here.measure(SETTINGS, part=1, share=0.25)
        assert isinstance(first, Sample)
        assert isinstance(second, Sample)
        assert first.value > 0
        assert here.start_seconds(SETTINGS) == 0.0
        assert len(stable.made) == 1
    assert stable.running == []


async def test_all_settings_get_the_same_requests() -> None:
    stable = Stable()
    other = replace(SETTINGS, ubatch=256)
    async with arena(stable) as here:
        for settings in (SETTINGS, other):
            await here.measure(settings, part=3, share=0.5)
    asked = [[request["messages"] for request in engine.requests[-2:]] for _, engine in stable.made]
    assert asked[0] == asked[1]
    assert asked[0][0] != asked[0][1]


async def test_released_settings_lose_their_engine() -> None:
    stable = Stable()
    async with arena(stable) as here:
        await here.measure(SETTINGS, part=0, share=0.25)
        await here.release(SETTINGS)
        assert stable.running == []
        await here.release(SETTINGS)  # twice does no harm


@pytest.mark.parametrize(("memory_gib", "alive"), [(8, 3), (2, 2), (1, 1), (0.5, 1)])
async def test_as_many_engines_stay_up_as_memory_allows(memory_gib: float, alive: int) -> None:
    stable = Stable()
    several = [replace(SETTINGS, ubatch=size) for size in (64, 128, 256)]
    async with arena(stable, memory_bytes=int(memory_gib * GIB)) as here:
        for settings in several:
            await here.measure(settings, part=0, share=0.25)
        assert stable.running == several[-alive:]


async def test_an_engine_that_refuses_is_a_failure_and_not_the_end() -> None:
    stable = Stable()
    bad, hungry = replace(SETTINGS, ubatch=7), replace(SETTINGS, ubatch=8)
    stable.fails = {bad: "The engine refuses.", hungry: "Not enough memory for the model."}
    async with arena(stable) as here:
        assert await here.measure(bad, part=0, share=0.25) == Failure(
            "refused", "The engine refuses.", pytest.approx(0, abs=5)
        )
        found = await here.measure(hungry, part=0, share=0.25)
        assert isinstance(found, Failure)
        assert found.outcome == "out-of-memory"
        assert isinstance(await here.measure(SETTINGS, part=0, share=0.25), Sample)


async def test_an_engine_that_died_idle_is_started_anew() -> None:
    stable = Stable()
    async with arena(stable) as here:
        await here.measure(SETTINGS, part=0, share=0.25)
        await stable.made[0][1].kill("Killed, for want of memory.")
        assert here.start_seconds(SETTINGS) > 0
        assert isinstance(await here.measure(SETTINGS, part=1, share=0.25), Sample)
        assert len(stable.made) == 2


async def _kill_at_work(stable: Stable) -> None:
    engine = stable.made[-1][1]
    asked = len(engine.requests)
    await until(lambda: len(engine.requests) > asked)
    await engine.kill("The engine ended on a failed assertion.")


SLOW = {"tokens": 500, "pause": 0.01}


async def test_an_engine_that_dies_at_work_is_a_failure_and_starts_anew() -> None:
    stable = Stable()
    async with arena(stable) as here:
        await here.measure(SETTINGS, part=0, share=0.25)
        stable.made[0][1].script = SLOW
        killing = asyncio.create_task(_kill_at_work(stable))
        found = await here.measure(SETTINGS, part=1, share=0.25)
        await killing
        assert isinstance(found, Failure)
        assert (found.outcome, found.sentence) == (
            "out-of-memory",  # which is what SIGKILL means, as a rule
            "The engine ended on a failed assertion.",
        )
        assert isinstance(await here.measure(SETTINGS, part=2, share=0.25), Sample)
        assert len(stable.made) == 2


async def test_another_workload_is_told_how_an_engine_ended() -> None:
    stable = Stable()
    work = Work(SCENARIOS["chat"], 2, sessions_each=1)
    async with arena(stable) as here:
        assert len((await here.run(SETTINGS, work, part=0))[0].records) == 2
        stable.made[0][1].script = SLOW
        killing = asyncio.create_task(_kill_at_work(stable))
        with pytest.raises(EngineError, match="failed assertion"):
            await here.run(SETTINGS, work, part=1)
        await killing
        assert len((await here.run(SETTINGS, work, part=2))[0].records) == 2
        assert len(stable.made) == 2


async def test_requests_that_fail_are_a_failure_in_the_engines_words() -> None:
    stable = Stable()
    async with arena(stable) as here:
        await here.measure(SETTINGS, part=0, share=0.25)
        stable.made[0][1].script = {"status": 400, "body": '{"error": {"message": "too long"}}'}
        found = await here.measure(SETTINGS, part=1, share=0.25)
    assert isinstance(found, Failure)
    assert found.outcome == "refused"
    assert "too long" in found.sentence


async def test_more_memory_than_planned_rules_settings_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.tune.engine_arena._resident_bytes", lambda _: 9 * GIB)
    stable = Stable()
    async with arena(stable) as here:
        found = await here.measure(SETTINGS, part=0, share=0.25)
        assert isinstance(found, Failure)
        assert found.outcome == "over-plan"
        assert stable.running == []
