"""The conversations that a template is tried on, and what has to be left of them in its text.

Plain ASCII without quotes or line ends, so that it survives a template that writes JSON. No word
occurs in two messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moestro.doctor.template.report import Conversation

SYSTEM = "Keep every reply short and mention the source."
QUESTION = "Which birds nest on the northern cliffs?"
ANSWER = "Puffins and fulmars nest there in summer."
NEXT_QUESTION = "When do these leave again?"
THOUGHT = "Seabirds breed near the open water."
TOOL = "get_current_temperature"
PARAMETER = "town_name"
ARGUMENT = "Reykjavik"
TOOL_QUESTION = "How cold is it in the capital of Iceland?"
RESULT = "minus 4 degrees"

_CALL_ID = "call12345"  # Mistral's templates ask for nine letters and digits

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Tells the temperature outdoors.",
            "parameters": {
                "type": "object",
                "properties": {
                    PARAMETER: {"type": "string", "description": "The town to look up."}
                },
                "required": [PARAMETER],
            },
        },
    }
]

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One call of the template. `name` is unique among the trials. `bare` leaves out what is not
    there (`tools`), as engines do; transformers hands over a None."""

    name: str
    messages: tuple[Message, ...]
    tools: bool = False
    opens: bool = True
    bare: bool = False

    def variables(self) -> dict[str, Any]:
        """What the template sees besides the special tokens."""
        known: dict[str, Any] = {
            "messages": list(self.messages),
            "add_generation_prompt": self.opens,
        }
        if self.tools:
            known["tools"] = TOOLS
        elif not self.bare:
            known["tools"] = None
        return known if self.bare else {**known, "documents": None}


def _said(role: str, content: str | None, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def _tool_messages(arguments: Any, content: str | None, **more: Any) -> tuple[Message, ...]:
    function = {"name": TOOL, "arguments": arguments}
    call = {"id": _CALL_ID, "type": "function", "function": function}
    return (
        _said("user", TOOL_QUESTION),
        _said("assistant", content, tool_calls=[call], **more),
        _said("tool", RESULT, tool_call_id=_CALL_ID, name=TOOL),
    )


_THOUGHTS = {"reasoning_content": THOUGHT, "reasoning": THOUGHT}
_ASKED, _ASKED_AGAIN = _said("user", QUESTION), _said("user", NEXT_QUESTION)
_SYSTEM = _said("system", SYSTEM)
_ANSWERED = (_ASKED, _said("assistant", ANSWER))
_THOUGHT_OVER = (_ASKED, _said("assistant", ANSWER, **_THOUGHTS))
_OBJECT, _TEXT = {PARAMETER: ARGUMENT}, f'{{"{PARAMETER}": "{ARGUMENT}"}}'

MAIN: Mapping[Conversation, tuple[Trial, ...]] = {
    "plain": (Trial("plain", (_ASKED,)), Trial("plain-bare", (_ASKED,), bare=True)),
    "system": (
        Trial("system", (_SYSTEM, _ASKED)),
        Trial("system-bare", (_SYSTEM, _ASKED), bare=True),
    ),
    "turns": (
        Trial("turns", (*_ANSWERED, _ASKED_AGAIN)),
        Trial("turns-bare", (*_ANSWERED, _ASKED_AGAIN), bare=True),
        Trial("turns-thought", (*_THOUGHT_OVER, _ASKED_AGAIN)),
    ),
    # Arguments come as an object (as transformers hands them over) or as text (as they travel), and
    # some templates want no content at all beside a call, or a thought.
    "tools": (
        Trial("tools", _tool_messages(_OBJECT, ""), tools=True),
        Trial("tools-text", _tool_messages(_TEXT, ""), tools=True),
        Trial("tools-silent", _tool_messages(_OBJECT, None), tools=True),
        Trial("tools-thought", _tool_messages(_OBJECT, "", **_THOUGHTS), tools=True),
    ),
}
"""The conversations, each in the forms that templates differ in; the first one that is rendered and
loses nothing counts."""

CLOSED = (
    Trial("closed", (_ASKED,), opens=False),
    Trial("closed-bare", (_ASKED,), opens=False, bare=True),
)
"""As `plain`, but no answer is asked for."""

BEGUN = Trial("begun", _THOUGHT_OVER, opens=False)
CONTINUED = Trial("continued", (*_THOUGHT_OVER, _ASKED_AGAIN), opens=False)

START = (
    Trial("start", (_said("user", "test"),), bare=True),
    Trial(
        "start-example",
        (
            _said("system", "You are a helpful assistant"),
            _said("user", "Hello"),
            _said("assistant", "Hi there"),
            _said("user", "How are you?"),
        ),
        bare=True,
    ),
)
"""What the engine has written when it starts (`common_chat_verify_template`,
`common_chat_format_example`): a template can lie in wait for just that."""

BESIDE: Mapping[Conversation, tuple[Trial, ...]] = {
    "plain": (*CLOSED, START[0]),
    "turns": (BEGUN, CONTINUED, START[1]),
}
"""Like the main ones, but only what is unsafe in them counts."""

TRIALS: Sequence[Trial] = (
    *(trial for forms in MAIN.values() for trial in forms),
    *(trial for others in BESIDE.values() for trial in others),
)


TOOL_NAME = "the tool's name"
TOOL_PARAMETER = "the tool's parameter"
CALLED_NAME = "the name of the tool that was called"
CALLED_ARGUMENTS = "the arguments of the call"


def lost_from(conversation: Conversation, text: str) -> tuple[str, ...]:
    """What `conversation` held and `text` lacks."""
    return tuple(what for what, there in _wanted(conversation, text) if not there)


def _wanted(conversation: Conversation, text: str) -> list[tuple[str, bool]]:
    match conversation:
        case "plain":
            return [("the question", QUESTION in text)]
        case "system":
            return [("the system message", SYSTEM in text), ("the question", QUESTION in text)]
        case "turns":
            return [
                ("the first question", QUESTION in text),
                ("the earlier answer", ANSWER in text),
                ("the last question", NEXT_QUESTION in text),
            ]
        case "tools":
            before, _, after = text.partition(TOOL_QUESTION)
            called = ARGUMENT in text
            return [
                ("the question", TOOL_QUESTION in text),
                (TOOL_NAME, TOOL in before or text.count(TOOL) > 1),
                (TOOL_PARAMETER, text.count(PARAMETER) > called),
                (CALLED_NAME, TOOL in after),
                (CALLED_ARGUMENTS, called),
                ("the tool's result", RESULT in text),
            ]
