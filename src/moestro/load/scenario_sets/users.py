"""Several people at once, with prompts of different lengths."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import Writer

LEAST_PROMPT_TOKENS, MOST_PROMPT_TOKENS = 150, 400
OUTPUT_TOKENS = 96
_TASKS = (
    "Summarise this in three sentences.",
    "List the people who are mentioned, with what they did.",
    "Which of these statements contradict each other?",
    "Write a friendly reply to the person who sent this.",
    "Put this into the order in which it happened.",
    "Give this a title, and explain the title.",
)


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("users", seed)
    while True:
        start = f"{writer.heading()}. {writer.chance.choice(_TASKS)}\n\n"
        tokens = writer.chance.randint(LEAST_PROMPT_TOKENS, MOST_PROMPT_TOKENS)
        content = f"{start}{writer.text(tokens * characters_per_token - len(start))}"
        yield Session((Turn(({"role": "user", "content": content},), OUTPUT_TOKENS),))


SCENARIO = Scenario(
    "users",
    "many users: four at once, prompts of 150 to 400 tokens",
    (LEAST_PROMPT_TOKENS + MOST_PROMPT_TOKENS) // 2,
    OUTPUT_TOKENS,
    4,
    _sessions,
)
