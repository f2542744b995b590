from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable, Mapping

import aiohttp
import pytest

from moestro.engine import EngineRequest
from moestro.errors import ModelNotFound
from moestro.gateway import growth
from moestro.gateway.growth import DEVICE, HOST, Forecast, GrowthWatch, Memory, Urgency, forecast
from moestro.gateway.life import Why
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from moestro.gateway.trend import LEAST_FLOORS, MOST_FLOORS, Floor, Floors, theil_sen
from moestro.units import GIB, MIB
from tests.gateway.conftest import until
from tests.gateway.stub_engine import StubEngine, StubMaker, stub_request

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def floors_of(sizes: Iterable[float]) -> Floors:
    """Memory in bytes after each request, looked at twice."""
    floors = Floors()
    for number, size in enumerate(sizes, 1):
        floors.add(number, int(size))
        floors.add(number, int(size))
    return floors


def forecast_of(floors: Floors, own: float, budget: float, **more: float) -> Forecast:
    return forecast(
        HOST,
        floors,
        Memory(int(own), int(budget)),
        allowance_bytes=int(more.get("allowance", 0)),
        requests_per_second=more.get("rate", 1.0),
        start_seconds=more.get("start", 1.0),
    )


def test_the_slope_is_the_median_of_all_pairs() -> None:
    slope = theil_sen([Floor(10 * n, 1000 + 30 * n) for n in range(10)])
    assert slope is not None
    assert (slope.value, slope.low, slope.high, slope.requests) == (3, 3, 3, 90)
    assert slope.rises


def test_a_third_of_the_floors_may_be_anything() -> None:
    found = [Floor(10 * n, 1000 + 30 * n) for n in range(30)]
    for n in range(0, 30, 4):
        found[n] = Floor(10 * n, random.Random(n).randrange(100_000))
    slope = theil_sen(found)
    assert slope is not None
    assert slope.value == pytest.approx(3, rel=0.3)


def test_few_floors_say_nothing() -> None:
    assert theil_sen([Floor(n, n) for n in range(LEAST_FLOORS - 1)]) is None


def test_noise_seldom_looks_like_growth() -> None:
    """The bounds are meant for 95 of 100; here a slope counts if it lies above zero: 2.5."""
    rising = 0
    for seed in range(400):
        draw = random.Random(seed)
        slope = theil_sen([Floor(n, draw.randrange(1000)) for n in range(20)])
        assert slope is not None
        rising += slope.rises
    assert rising <= 20


def test_bounds_lie_alike_on_either_side() -> None:
    """What falls as another one rises has its bounds, turned around."""
    for count in range(LEAST_FLOORS, 40):
        draw = random.Random(count)
        ups = [draw.randrange(1000) for _ in range(count)]
        # The largest step lies in the same place of both.
        ups[count // 2] = ups[count // 2 - 1] + 10**6
        downs = [-up for up in ups[: count // 2]] + [10**7 - up for up in ups[count // 2 :]]
        rising, falling = (
            theil_sen([Floor(n, size) for n, size in enumerate(sizes)]) for sizes in (ups, downs)
        )
        assert rising is not None
        assert falling is not None
        assert (rising.low, rising.high) == (-falling.high, -falling.low)
        assert rising.low <= rising.value <= rising.high


@pytest.mark.parametrize("noise", [1, 20, 60])
def test_a_buffer_that_is_made_once_is_no_leak(noise: int) -> None:
    """Wherever it lies in what is looked at, and whatever memory does besides."""
    for seed in range(10):
        draw = random.Random(seed)
        at = draw.randrange(60, 400)
        floors = Floors()
        for number in range(1, 600):
            size = GIB + 200 * MIB * (number >= at) + draw.randrange(noise * MIB)
            ended = [floors.add(number, size) for _ in range(2)]
            found = forecast_of(floors, size, GIB + 600 * MIB)
            if any(ended):
                assert found.urgency is Urgency.NONE, (seed, number - at, found)


def test_floors_lie_under_the_ups_and_downs() -> None:
    draw = random.Random(1)
    floors = floors_of(GIB + 100 * n + draw.choice((0, 0, 50 * MIB)) for n in range(2000))
    for slope in floors.slopes():
        assert slope.value == pytest.approx(100, rel=0.2)
    assert floors.first is not None
    assert floors.last is not None
    assert floors.last.bytes - floors.first.bytes == pytest.approx(200_000, rel=0.05)


def test_memory_of_the_watch_itself_is_bounded() -> None:
    floors = floors_of(GIB for _ in range(100_000))
    assert all(slope.value == 0 for slope in floors.slopes())
    assert all(len(line) <= MOST_FLOORS for line in floors._lines)
    assert len(floors.slopes()) == 12


def test_what_is_made_at_first_is_no_growth() -> None:
    floors = floors_of(min(n, 9) * 100 * MIB for n in range(80))
    assert forecast_of(floors, GIB, 2 * GIB).urgency is Urgency.NONE


def test_a_leak_is_replaced_soon_and_then_now() -> None:
    leak = [GIB + n * MIB for n in range(400)]
    assert forecast_of(floors_of(leak), leak[-1], 100 * GIB).urgency is Urgency.NONE
    soon = forecast_of(floors_of(leak), leak[-1], leak[-1] + 300 * MIB)
    assert soon.urgency is Urgency.SOON
    assert soon.requests_left == pytest.approx(300)
    now = forecast_of(floors_of(leak), leak[-1], leak[-1] + 8 * MIB)
    assert now.urgency is Urgency.NOW
    assert "by 1.00 MiB a request" in now.sentence
    assert forecast_of(floors_of(leak), leak[-1], leak[-1] - 1).urgency is Urgency.NOW


def test_haste_depends_on_how_fast_requests_come_and_engines_start() -> None:
    leak = floors_of(GIB + n * MIB for n in range(400))
    own, budget = GIB + 400 * MIB, GIB + 700 * MIB
    assert forecast_of(leak, own, budget, rate=1, start=10).urgency is Urgency.SOON
    assert forecast_of(leak, own, budget, rate=10, start=10).urgency is Urgency.NOW
    assert forecast_of(leak, own, budget, rate=1, start=300).urgency is Urgency.NOW


def test_a_late_leak_is_seen_although_the_engine_is_old() -> None:
    """100,000 quiet requests, then 4 MiB each."""
    sizes = [GIB] * 100_000 + [GIB + n * 4 * MIB for n in range(100)]
    found = forecast_of(floors_of(sizes), sizes[-1], sizes[-1] + GIB)
    assert found.urgency is Urgency.SOON
    assert found.slope is not None
    assert found.slope.value == pytest.approx(4 * MIB, rel=0.1)


def test_a_slow_leak_is_seen_over_thousands() -> None:
    draw = random.Random(5)
    sizes = [GIB + 20_000 * n + draw.randrange(60 * MIB) for n in range(4000)]
    found = forecast_of(floors_of(sizes), sizes[-1], sizes[-1] + 5 * MIB)
    assert found.urgency is not Urgency.NONE


def test_caches_may_fill_up_to_their_bound() -> None:
    sizes = [GIB + min(n, 300) * MIB for n in range(400)]
    for end in (100, 200, 300, 400):
        filling = floors_of(sizes[:end])
        found = forecast_of(filling, sizes[end - 1], GIB + 400 * MIB, allowance=300 * MIB)
        assert found.urgency is Urgency.NONE
    leaks = floors_of([*sizes, *(GIB + (300 + n) * MIB for n in range(100))])
    found = forecast_of(leaks, GIB + 399 * MIB, GIB + 400 * MIB, allowance=300 * MIB)
    assert found.urgency is Urgency.NOW


def test_caches_that_end_beyond_the_budget_are_no_excuse() -> None:
    leak = [GIB + n * MIB for n in range(200)]
    budget = leak[-1] + 50 * MIB
    assert forecast_of(floors_of(leak), leak[-1], budget, allowance=GIB).urgency is Urgency.SOON
    assert forecast_of(floors_of(leak), leak[-1], budget, allowance=200 * MIB).urgency is (
        Urgency.NONE
    )


def test_a_budget_that_was_crossed_from_the_start_is_no_reason() -> None:
    """Another engine would need as much."""
    assert forecast_of(floors_of([3 * GIB] * 200), 3 * GIB, 2 * GIB).urgency is Urgency.NONE
    filling = [3 * GIB + n * MIB for n in range(200)]
    assert forecast_of(floors_of(filling), filling[-1], 2 * GIB).urgency is Urgency.NONE


async def test_the_rate_is_that_of_the_last_minute() -> None:
    service = Service(Maker(), stub_request())
    await service.start()
    assert service.life is not None
    watched = growth._Watched(service.life, begun=0.0, answered=500)
    watched.lately.append((86_340.0, 499))
    watched.lately.append((86_370.0, 500))
    assert watched.rate(86_400.0) == pytest.approx(1 / 60)
    watched.answered = 800
    assert watched.rate(86_400.0) == pytest.approx(301 / 60)
    assert watched.rate(86_420.0) == pytest.approx(300 / 50)
    await service.stop()


def test_before_fifty_requests_nothing_is_believed() -> None:
    leak = [GIB + n * 50 * MIB for n in range(48)]
    assert forecast_of(floors_of(leak), leak[-1], leak[-1] + 1).urgency is Urgency.NONE


# With a service


class Maker(StubMaker):
    """Engines with processes of a kind, numbered from 1; with `fails` they do not start."""

    fails: str | None = None

    def __call__(self, request: EngineRequest) -> StubEngine:
        if self.fails is not None:
            self.plans.append({"fails": self.fails})
        engine = super().__call__(request)
        engine.pid = len(self.made)
        return engine


class Leak:
    """Memory that grows with each request that the engine of that process was asked."""

    def __init__(self, maker: Maker, each_bytes: int, budget_bytes: int, place: str) -> None:
        self.maker, self.each, self.budget, self.place = maker, each_bytes, budget_bytes, place

    def __call__(self, pid: int) -> Mapping[str, Memory]:
        asked = len(self.maker.made[pid - 1].requests)
        return {self.place: Memory(GIB + asked * self.each, self.budget)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SAMPLE_SECONDS", 0.002)
    monkeypatch.setattr(growth, "QUIET_SECONDS", 0.05)


@pytest.mark.parametrize("place", [HOST, DEVICE])
async def test_engines_that_leak_are_replaced_and_nobody_notices(quick: None, place: str) -> None:
    maker = Maker()
    read = Leak(maker, 4 * MIB, 2 * GIB, place)
    service = Service(maker, stub_request(parallel=4), growth=GrowthWatch(read))
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        for number in range(700):
            async with http.post("/v1/chat/completions", json=HELLO) as answer:
                assert answer.status == 200, number
    assert service.growth is not None
    assert service.growth.replacements >= 1
    assert service.restarts == 0
    assert set(service.restart_reasons) == {Why.GREW}
    assert max(len(engine.requests) for engine in maker.made) * read.each < GIB
    told = " ".join(note.text for note in service.notes)
    assert f"its {place} memory grows by 4.00 MiB a request" in told


async def test_a_budget_that_an_engine_begins_above_is_told_once(quick: None) -> None:
    maker = Maker()
    service = Service(maker, stub_request(), growth=GrowthWatch(Leak(maker, MIB, MIB, HOST)))
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        for _ in range(20):
            async with http.post("/v1/chat/completions", json=HELLO) as answer:
                assert answer.status == 200
            await asyncio.sleep(0.005)
        told = [note for note in service.notes if "more than the 1.00 MiB that it may" in note.text]
    assert len(told) == 1
    assert told[0].engine == 1


@pytest.mark.parametrize("slow", [True, False])
async def test_only_a_slow_look_takes_a_thread(quick: None, slow: bool) -> None:
    threads: list[int] = []

    def read(_pid: int) -> Mapping[str, Memory]:
        threads.append(threading.get_ident())
        return {HOST: Memory(GIB, 2 * GIB)}

    service = Service(Maker(), stub_request(), growth=GrowthWatch(read, slow=lambda _pid: slow))
    async with serving(service, bind(port=0)):
        await until(lambda: bool(threads))
    assert (threading.get_ident() not in threads) is slow


async def test_a_quiet_moment_is_waited_for(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "HASTE_SECONDS", 0.0)
    maker = Maker()
    watch = GrowthWatch(Leak(maker, MIB, GIB + 500 * MIB, HOST))
    service = Service(maker, stub_request(parallel=4), growth=watch)
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        hangs = {**HELLO, "stream": True, "stub": {"hang": True}}
        slow = asyncio.create_task(http.post("/v1/chat/completions", json=hangs))
        while not watch.forecasts or watch.forecasts[0].urgency is not Urgency.SOON:
            async with http.post("/v1/chat/completions", json=HELLO) as answer:
                assert answer.status == 200
            assert len(maker.made[0].requests) < 400
        assert len(maker.made) == 1
        slow.cancel()
        await until(lambda: watch.replacements == 1)
    assert len(maker.made) == 2


@pytest.mark.parametrize("made", [True, False])
async def test_a_replacement_that_fails_is_not_tried_again_at_once(
    quick: None, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """Whether the engine does not start, or cannot even be made."""
    maker = Maker()
    watch = GrowthWatch(Leak(maker, 4 * MIB, 2 * GIB, HOST))
    service = Service(maker, stub_request(parallel=4), growth=watch, fits_beside=lambda _: True)
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        maker.fails = "No room."
        if not made:

            async def gone(*_: object, **__: object) -> None:
                maker.made.append(maker.made[0])
                raise ModelNotFound("The file is gone.")

            monkeypatch.setattr(service, "replace", gone)
        for _ in range(500):
            async with http.post("/v1/chat/completions", json=HELLO) as answer:
                assert answer.status == 200
        assert watch.replacements == 0
        assert len(maker.made) == 2
