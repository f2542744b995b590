"""Coroutines that run until they have to wait, and no task before that."""

from __future__ import annotations

import asyncio

import pytest

from moestro.gateway.begun import Begun


async def test_what_need_not_wait_is_done_at_once() -> None:
    async def answer() -> int:
        return 42

    begun = Begun(answer())
    assert begun.done
    assert begun.result == 42


async def test_what_waits_goes_on_in_another_task() -> None:
    go_on, steps = asyncio.Event(), []

    async def answer() -> str:
        steps.append("begun")
        await go_on.wait()
        steps.append("waited")
        await asyncio.sleep(0)
        return "done"

    begun = Begun(answer())
    assert not begun.done
    assert steps == ["begun"]

    async def rest() -> str:
        return await begun

    task = asyncio.create_task(rest())
    await asyncio.sleep(0.01)
    assert steps == ["begun"]
    go_on.set()
    assert await task == "done"
    assert steps == ["begun", "waited"]


async def test_an_error_comes_where_it_happens() -> None:
    async def at_once() -> None:
        raise ValueError("at once")

    async def later() -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    with pytest.raises(ValueError, match="at once"):
        Begun(at_once())
    with pytest.raises(ValueError, match="later"):
        await Begun(later())


async def test_a_cancelled_task_is_told_where_it_waits() -> None:
    told = []

    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    begun = Begun(answer())

    async def rest() -> None:
        await begun

    task = asyncio.create_task(rest())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert told == ["cancelled"]
