"""How much one request may take, whoever sends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moestro.client.text import json_bytes
from moestro.gateway.call import Call
from moestro.gateway.defaults import MAX_BODIES_BYTES, MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Bounds:
    """`body_bytes` of a request, `bodies_bytes` of all that are in progress, `tokens` of an answer,
    `seconds` from the moment that the request has been read to the end of its answer. None is no
    bound but those of the engine's context and of the queue."""

    body_bytes: int = MAX_BODY_BYTES
    bodies_bytes: int = MAX_BODIES_BYTES
    tokens: int | None = None
    seconds: float | None = None

    def held(self, call: Call, names: Sequence[str]) -> Call:
        """The request, so that its answer has `tokens` at most. `names` are the fields that say how
        many it asks for, the usual one first. A client that asks for more gets an answer that ends
        with “length”, as it does at the end of the context."""
        most = self.tokens
        if most is None:
            return call
        asked = {name: call.data[name] for name in names if call.data.get(name) is not None}
        if asked and all(_is_count(number) and number <= most for number in asked.values()):
            return call
        held = {name: number if _is_count(number) else most for name, number in asked.items()}
        fewer = {name: min(number, most) for name, number in held.items()} or {names[0]: most}
        data = {**call.data, **fewer}
        return replace(call, body=json_bytes(data), data=data)


def _is_count(number: object) -> bool:
    """Engines read a negative number as “without end”."""
    return isinstance(number, int | float) and not isinstance(number, bool) and number >= 0
