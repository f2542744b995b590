"""Words in no order: prompts and answers of a given length, and nothing that repeats."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import Writer

PROMPT_TOKENS = 512
OUTPUT_TOKENS = 128


def random_scenario(
    prompt_tokens: int = PROMPT_TOKENS, output_tokens: int = OUTPUT_TOKENS, concurrency: int = 1
) -> Scenario:
    """`output_tokens` is an upper bound unless the load ignores the end of answers."""

    def sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
        writer = Writer("random", seed)
        while True:
            start = f"{writer.number()} "
            left = prompt_tokens * characters_per_token - len(start)
            content = f"{start}{writer.words(left)}"
            yield Session((Turn(({"role": "user", "content": content},), output_tokens),))

    return Scenario(
        "random",
        f"random words: prompts of about {prompt_tokens} tokens, answers of {output_tokens}",
        prompt_tokens,
        output_tokens,
        concurrency,
        sessions,
    )


SCENARIO = random_scenario()
