"""Whether a ready engine still moves: one that hangs never ends by itself, and nobody restarts it.

While requests are with it, an engine is asked now and then for its slots. It answers between two
steps of its computing, and a step may be a long one: a large prompt on few cores. So silence has
to be long, and total: no answer to that question, and no byte of any stream.
"""

from __future__ import annotations

import asyncio
import time

from moestro.gateway.life import Life

EVERY_SECONDS = 15.0
SILENT_SECONDS = 300.0
"""Longer than a step of any sane plan takes; shorter than people wait before they call somebody."""


async def until_silent(life: Life) -> None:
    """Returns when an engine with requests has said nothing for `SILENT_SECONDS`."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        if not life.running:
            continue
        asked_at = time.monotonic()
        if await _answers(life):
            continue
        if life.running and life.heard_at < asked_at:
            return


async def _answers(life: Life) -> bool:
    """Whatever it says, also a refusal, and also the end of its connection: others see to that."""
    try:
        async with asyncio.timeout(SILENT_SECONDS) as limit, life.link.get("/slots") as answer:
            await answer.rest()
    except TimeoutError:  # not that of a connection: it is shorter
        return life.exit is not None or not limit.expired()
    except OSError:
        return True
    return True
