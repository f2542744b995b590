"""How many characters make a token at an endpoint."""

from __future__ import annotations

import asyncio

from moestro.client.endpoint import EndpointClient
from moestro.errors import GatewayError
from moestro.load.counts import counts_of
from moestro.load.scenario import Scenario, Turn
from moestro.load.scenarios import SCENARIOS
from moestro.load.target import Target

_SEED = 0xCA11B
_FIRST_RATIO = 1.0
"""Hardly any tokenizer makes more tokens than characters: the first prompt is never too long."""

_ENOUGH_TOKENS = 400
"""Beside so many the chat template's own hardly count."""

_SECONDS = 600.0
_MOST_PIECES = 64
"""Of an answer that was to be a single token."""

_LEAST, _MOST = 0.25, 50.0


async def calibrate(
    target: Target, scenario: Scenario | None = None, *, client: EndpointClient | None = None
) -> float | None:
    """Characters per token of the scenario's own text (the chat's where None is given), the chat
    template's tokens counted in. Asks for a single token: once with a prompt that is too short
    rather than too long, and where that was very short once more with one of about the right
    length. None where the endpoint does not count its prompt tokens.

    Raises:
        GatewayError: nothing answers at the target, or it refused.
    """
    # Imported here: `generate` needs nothing of this module, and this one only its client.
    from moestro.load.generate import client_of

    if client is None:
        async with client_of(target) as made:
            return await calibrate(target, scenario, client=made)
    sample = scenario or SCENARIOS["chat"]
    ratio = _FIRST_RATIO
    for seed in (_SEED, _SEED + 1):
        turn = next(sample.sessions(seed, ratio)).turns[0]
        tokens = await _prompt_tokens(client, target.model, turn)
        if not tokens:
            return None
        ratio = _characters(turn) / tokens
        if not _LEAST <= ratio <= _MOST:
            return None
        if tokens >= _ENOUGH_TOKENS:
            break
    return ratio


async def _prompt_tokens(client: EndpointClient, model: str | None, turn: Turn) -> int | None:
    options = {**turn.options, "max_tokens": 1, "temperature": 0.0}
    try:
        async with (
            asyncio.timeout(_SECONDS),
            client.chat(turn.messages, model=model, options=options) as stream,
        ):
            pieces = 0
            async for _ in stream:
                pieces += 1
                if pieces > _MOST_PIECES:
                    return None
    except TimeoutError as error:
        raise GatewayError(
            f"{client.url} took more than {_SECONDS:.0f} s for a short prompt and one token.",
            hint="Look at what it does meanwhile, or take a smaller model.",
            code="timed-out",
        ) from error
    answer = stream.answer
    return counts_of(answer.usage, answer.engine_timings).prompt


def _characters(turn: Turn) -> int:
    return sum(len(str(message.get("content") or "")) for message in turn.messages)
