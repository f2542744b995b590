"""The chat format, as text. `template.jinja` renders the same; evaluation asks the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]

TOOLS_BEFORE = "# Tools\n\nYou may call these functions:\n<tools>"
TOOLS_AFTER = (
    "\n</tools>\n\nTo call one, answer with its name and arguments:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def dumps(value: Any) -> str:
    """JSON spelled as the template engine's `tojson` spells it."""
    return json.dumps(value, ensure_ascii=False)


def render(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """ChatML text of a whole conversation. `tools` are OpenAI-style tool objects."""
    parts: list[str] = []
    rest = list(messages)
    if tools:
        parts.append("<|im_start|>system\n")
        if rest and rest[0]["role"] == "system":
            parts.append(rest.pop(0)["content"] + "\n\n")
        parts.append(TOOLS_BEFORE)
        parts += ["\n" + dumps(tool["function"]) for tool in tools]
        parts.append(TOOLS_AFTER + "<|im_end|>\n")
    for m in rest:
        if m["role"] == "tool":
            body = f"<tool_response>\n{m['content']}\n</tool_response>"
            parts.append(f"<|im_start|>user\n{body}<|im_end|>\n")
            continue
        body = m.get("content") or ""
        for call in m.get("tool_calls", ()):
            function = call["function"]
            body += (
                ("\n" if body else "")
                + f'<tool_call>\n{{"name": "{function["name"]}", '
                + f'"arguments": {dumps(function["arguments"])}}}\n</tool_call>'
            )
        parts.append(f"<|im_start|>{m['role']}\n{body}<|im_end|>\n")
    return "".join(parts)


def turns(*texts: str) -> str:
    """A conversation of plain turns, the user first."""
    roles = ("user", "assistant")
    return render([{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)])
