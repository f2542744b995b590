"""Who is served next."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from moestro.gateway import failure
from moestro.gateway.failure import RequestFailed
from moestro.gateway.life import Life
from moestro.gateway.queue import Queue, Ticket
from tests.gateway.stub_engine import StubEngine, stub_request


async def ready(stack: AsyncExitStack, number: int = 1) -> Life:
    life = Life(number, StubEngine(), stub_request(), lambda _life, _why: None)
    await life.start()
    stack.push_async_callback(life.stop, "the test is over")
    return life


class Crowd:
    """Requests that stay with the engine until they are told to go."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def come(self, name: str, ticket: Ticket | None = None) -> None:
        self._go[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, ticket or Ticket(name[0])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _stay(self, name: str, ticket: Ticket) -> None:
        async with self.queue.turn(ticket):
            self.served.append(name)
            await self._go[name].wait()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def all_go(self) -> None:
        for go in self._go.values():
            go.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_as_many_as_there_are_streams_and_one_more() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        queue.open(await ready(stack), streams=2)
        for number in range(5):
            await crowd.come(f"a{number}")
        assert crowd.served == ["a0", "a1", "a2"]
        assert queue.waiting == 2
        await crowd.go("a1")
        assert crowd.served == ["a0", "a1", "a2", "a3"]
        await crowd.all_go()
        assert queue.waiting == 0


async def test_keys_take_turns_however_much_one_sends() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        for name in ("a0", "a1", "a2", "a3", "b0", "c0", "b1"):
            await crowd.come(name)
        queue.open(await ready(stack), streams=1)
        await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
            await crowd.go(crowd.served[-1])
        assert crowd.served[:6] == ["a0", "b0", "c0", "a1", "b1", "a2"]
        await crowd.all_go()


async def test_who_lost_an_engine_comes_first() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        await crowd.come("a0")
        await crowd.come("b0", Ticket("b", interrupted=True))
        queue.open(await ready(stack), streams=1)
        await asyncio.sleep(0.01)
        assert crowd.served == ["b0", "a0"]
        await crowd.all_go()


async def test_whom_engines_crashed_under_is_served_alone() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        life = await ready(stack)
        queue.open(life, streams=4)
        await crowd.come("a0")
        await crowd.come("x0", Ticket("x", crashes=2, interrupted=True))
        await crowd.come("b0")
        assert crowd.served == ["a0"]
        await crowd.go("a0")
        assert crowd.served == ["a0", "x0"]
        assert life.running == 1
        await crowd.go("x0")
        assert crowd.served == ["a0", "x0", "b0"]
        await crowd.all_go()


async def test_who_waits_for_a_suspect_may_go_when_it_leaves() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        queue.open(await ready(stack), streams=4)
        await crowd.come("a0")
        await crowd.come("x0", Ticket("x", crashes=2, interrupted=True))
        await crowd.come("b0")
        assert crowd.served == ["a0"]
        crowd.tasks["x0"].cancel()
        await asyncio.sleep(0.01)
        assert crowd.served == ["a0", "b0"]
        await crowd.all_go()


async def test_nobody_is_sent_to_an_engine_that_is_gone_or_going() -> None:
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        first, second = await ready(stack), await ready(stack, 2)
        queue.open(first, streams=2)
        first.drain("it is replaced")
        await crowd.come("a0")
        assert crowd.served == []
        queue.open(second, streams=2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert crowd.served == ["a0"]
        assert (first.running, second.running) == (0, 1)
        await crowd.all_go()


async def test_a_full_queue_says_so_but_not_to_whom_it_owes_an_answer() -> None:
    queue = Queue(most_waiting=2)
    crowd = Crowd(queue)
    await crowd.come("a0")
    await crowd.come("a1")
    with pytest.raises(RequestFailed) as full:
        async with queue.turn(Ticket("b")):
            pass
    assert full.value.failure.code == "queue_full"
    assert full.value.failure.status == 503
    assert full.value.failure.retry_after_seconds
    with pytest.raises(RequestFailed, match="2 requests are waiting"):
        queue.check()
    await crowd.come("c0", Ticket("c", interrupted=True))
    assert queue.waiting == 3
    for task in crowd.tasks.values():
        task.cancel()
    await crowd.all_go()
    assert queue.waiting == 0


async def test_a_deadline_ends_the_wait() -> None:
    queue = Queue(wait_seconds=0.05)
    with pytest.raises(RequestFailed) as late:
        async with queue.turn(Ticket()):
            pass
    assert late.value.failure.code == "queue_timeout"
    assert queue.waiting == 0


async def test_a_place_that_its_request_no_longer_wants_is_given_on() -> None:
    """It was given in the same turn of the loop in which the client left."""
    async with AsyncExitStack() as stack:
        queue = Queue()
        crowd = Crowd(queue)
        life = await ready(stack)
        for name in ("a0", "a1", "a2"):
            await crowd.come(name)
        queue.open(life, streams=1)
        crowd.tasks["a0"].cancel()
        await asyncio.sleep(0.01)
        assert crowd.served == ["a1", "a2"]
        assert life.running == 2
        await crowd.all_go()
        assert life.running == 0


async def test_the_end_of_the_service_reaches_everyone_who_waits() -> None:
    queue = Queue()
    crowd = Crowd(queue)
    await crowd.come("a0")
    queue.refuse(failure.unavailable("over", "shutting_down"))
    with pytest.raises(RequestFailed, match="over"):
        await crowd.tasks["a0"]
    with pytest.raises(RequestFailed, match="over"):
        async with queue.turn(Ticket()):
            pass
