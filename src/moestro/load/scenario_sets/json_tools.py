"""Small requests whose answers have a form: a JSON schema, or a tool that must be called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import Writer

PROMPT_TOKENS = 160
OUTPUT_TOKENS = 64

_PROPERTIES = {
    "person": {"type": "string", "maxLength": 40},
    "action": {"type": "string", "enum": ["repair", "move", "sell", "describe", "other"]},
    "amount": {"type": "integer"},
    "certain": {"type": "boolean"},
}
_SCHEMA = {
    "type": "object",
    "properties": _PROPERTIES,
    "required": list(_PROPERTIES),
    "additionalProperties": False,
}
_AS_JSON = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "event", "strict": True, "schema": _SCHEMA},
    }
}
_AS_CALL = {
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "record_event",
                "description": "Stores one event of the text.",
                "parameters": _SCHEMA,
            },
        }
    ],
    "tool_choice": "required",
}


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("json-tools", seed)
    while True:
        yield _session(writer, characters_per_token, _AS_JSON, "Describe the first event as JSON.")
        yield _session(writer, characters_per_token, _AS_CALL, "Record the first event.")


def _session(
    writer: Writer, characters_per_token: float, options: dict[str, Any], task: str
) -> Session:
    start = f"{writer.heading()}. "
    left = PROMPT_TOKENS * characters_per_token - len(start) - len(task)
    content = f"{start}{writer.text(left)}\n\n{task}"
    return Session((Turn(({"role": "user", "content": content},), OUTPUT_TOKENS, options),))


SCENARIO = Scenario(
    "json-tools",
    "JSON and tool calls: small requests whose answers have a form",
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    2,
    _sessions,
)
