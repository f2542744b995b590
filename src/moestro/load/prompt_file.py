"""Prompts that a user brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moestro.errors import UsageError
from moestro.load.scenario import Scenario, Session, Turn
from moestro.words import shown

OUTPUT_TOKENS = 128

_MOST_FILE_BYTES = 256 * 1024 * 1024
_MOST_LINE_BYTES = 8 * 1024 * 1024
_MOST_PROMPTS = 1_000_000
_MOST_MESSAGES = 10_000
_MOST_OUTPUT_TOKENS = 1_000_000
_ROLES = ("system", "developer", "user", "assistant", "tool")


def from_file(path: Path, *, output_tokens: int = OUTPUT_TOKENS) -> Scenario:
    """One prompt per line: plain text, or (where the name ends with .jsonl) an object with `prompt`
    or `messages`, and perhaps `max_tokens`. Empty lines are skipped.

    They are sent in the order of the file, from a place that the seed chooses (0: the first), and
    again from the first after the last.

    Raises:
        UsageError: not such a file, or an absurdly large one.
    """
    turns = tuple(_turns(path, output_tokens))
    if not turns:
        raise UsageError(f"{path} holds no prompt.")

    def sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
        place = seed % len(turns)
        while True:
            yield Session((turns[place],))
            place = (place + 1) % len(turns)

    characters = sum(len(str(message)) for turn in turns for message in turn.messages)
    return Scenario(
        path.name,
        f"{len(turns):,} prompts of {path.name}",
        max(round(characters / len(turns) / 4), 1),
        round(sum(turn.max_tokens for turn in turns) / len(turns)),
        1,
        sessions,
        fixed=True,
    )


def _turns(path: Path, output_tokens: int) -> Iterator[Turn]:
    as_json = path.suffix.lower() in (".jsonl", ".ndjson")
    for number, line in _lines(path):
        text = line.strip()
        if not text:
            continue
        if as_json:
            yield _turn(path, number, text, output_tokens)
        else:
            yield Turn(({"role": "user", "content": text},), output_tokens)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    read_bytes = 0
    try:
        with path.open("rb") as file:
            for number in range(1, _MOST_PROMPTS + 2):
                line = file.readline(_MOST_LINE_BYTES + 1)
                if not line:
                    return
                read_bytes += len(line)
                if len(line) > _MOST_LINE_BYTES:
                    raise _bad(path, number, "is longer than 8 MiB")
                if read_bytes > _MOST_FILE_BYTES or number > _MOST_PROMPTS:
                    raise UsageError(
                        f"{path} holds more than 256 MiB or a million lines.",
                        hint="Give a part of it.",
                    )
                yield number, line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _turn(path: Path, number: int, text: str, output_tokens: int) -> Turn:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(path, number, "is not JSON") from error
    if not isinstance(data, dict):
        raise _bad(path, number, "is not an object")
    tokens = data.get("max_tokens", output_tokens)
    if type(tokens) is not int or not 1 <= tokens <= _MOST_OUTPUT_TOKENS:
        raise _bad(path, number, "has a max_tokens that is no number of tokens")
    prompt = data.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return Turn(({"role": "user", "content": prompt},), tokens)
    messages: Any = data.get("messages")
    if not _are_messages(messages):
        raise _bad(path, number, "has neither a prompt nor messages")
    return Turn(tuple(messages), tokens)


def _are_messages(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and 0 < len(messages) <= _MOST_MESSAGES
        and all(
            isinstance(message, dict)
            and message.get("role") in _ROLES
            and ("content" in message or "tool_calls" in message)
            for message in messages
        )
    )


def _bad(path: Path, number: int, what: str) -> UsageError:
    return UsageError(
        f"Line {number:,} of {shown(path.name)} {what}.",
        hint='A line is {"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]}.',
    )
