"""One person, one question at a time."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import Writer

PROMPT_TOKENS = 200
OUTPUT_TOKENS = 128


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("chat", seed)
    while True:
        start = f"{writer.heading()}. "
        question = (
            f"\n\nWhat should {writer.name()} do next, and why? "
            "Answer in two paragraphs, and mention the place and the time."
        )
        left = PROMPT_TOKENS * characters_per_token - len(start) - len(question)
        content = f"{start}{writer.text(left)}{question}"
        yield Session((Turn(({"role": "user", "content": content},), OUTPUT_TOKENS),))


SCENARIO = Scenario(
    "chat",
    "single chat: short questions, one at a time",
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    1,
    _sessions,
)
