"""An agent at work: every step reads all steps before it again, and adds a little.

The tools are told in the text and results come as a user's words, so that every chat template can
hold the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from moestro.load.scenario import Message, Scenario, Session, Turn
from moestro.load.scenario_sets.prose import WORDS, Writer, cut

SYSTEM_TOKENS = 600
TASK_TOKENS = 60
RESULT_TOKENS = 120
OUTPUT_TOKENS = 48
LEAST_TURNS, MOST_TURNS = 4, 6

_RULES = (
    "You work on the task alone, one step at a time. In each step you either call one tool or give "
    "the final answer. A call is one line of JSON with the keys `tool` and `arguments`, and "
    "nothing stands before or after it. The result of the call comes with the next message. Never "
    "invent a result. Tools:\n"
)
_TOOLS = (
    ("read_file", "path", "Returns the text of a file, at most 400 lines of it."),
    ("list_files", "folder", "Lists the files of a folder with their sizes in bytes."),
    (
        "search",
        "pattern",
        "Finds lines that match a pattern, with file and line number.",
    ),
    ("write_file", "path, text", "Replaces a file's text, or makes the file."),
    ("run_tests", "selection", "Runs the tests whose names contain the selection."),
    ("show_history", "path", "The last ten changes of a file, with author, date and message."),
    ("ask_user", "question", "Asks the person who gave the task; use it rarely."),
    ("finish", "summary", "Ends the task with a summary of what was changed."),
)


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("agent", seed)
    system = _system(writer, SYSTEM_TOKENS * characters_per_token)
    while True:
        yield _session(writer, system, characters_per_token)


def _system(writer: Writer, characters: float) -> str:
    """The same for all sessions of one seed: agents of one kind share it."""
    start = f"Workspace {writer.heading()}. {_RULES}"
    tools = "".join(f"- {name}({what}): {does}\n" for name, what, does in _TOOLS)
    known = "What is known about this workspace: "
    left = characters - len(start) - len(tools) - len(known)
    return cut(f"{start}{tools}{known}{writer.text(left)}", characters)


def _session(writer: Writer, system: str, characters_per_token: float) -> Session:
    task = writer.text(TASK_TOKENS * characters_per_token)
    messages: list[Message] = [
        {"role": "system", "content": system},
        {"role": "user", "content": f"Task {writer.heading()}: find out about this. {task}"},
    ]
    turns = []
    for _ in range(writer.chance.randint(LEAST_TURNS, MOST_TURNS)):
        turns.append(Turn(tuple(messages), OUTPUT_TOKENS))
        result = writer.text(RESULT_TOKENS * characters_per_token)
        messages += (
            {"role": "assistant", "content": _call(writer)},
            {"role": "user", "content": f"Result:\n{result}"},
        )
    return Session(tuple(turns))


def _call(writer: Writer) -> str:
    name, what, _ = writer.chance.choice(_TOOLS[:6])
    arguments = {one: f"src/{writer.chance.choice(WORDS)}.py" for one in what.split(", ")}
    return json.dumps({"tool": name, "arguments": arguments})


SCENARIO = Scenario(
    "agent",
    "agent loop: 4 to 6 steps, each with all steps before it in front",
    SYSTEM_TOKENS + TASK_TOKENS + 2 * RESULT_TOKENS,
    OUTPUT_TOKENS,
    1,
    _sessions,
)
