"""A long document and a short answer."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import Writer

PROMPT_TOKENS = 2048
OUTPUT_TOKENS = 32
_QUESTION = "\n\nWho is mentioned first in the text above, and what did that person do?"


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("long-prompt", seed)
    while True:
        start = f"{writer.heading()}\n\n"
        left = PROMPT_TOKENS * characters_per_token - len(start) - len(_QUESTION)
        content = f"{start}{writer.text(left)}{_QUESTION}"
        yield Session((Turn(({"role": "user", "content": content},), OUTPUT_TOKENS),))


SCENARIO = Scenario(
    "long-prompt",
    "long prompt: a document of about 2048 tokens, a short answer",
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    1,
    _sessions,
)
