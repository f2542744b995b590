"""The training text: one small module per domain, each with NAME and document(rng)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forge.data import arithmetic, echo, facts, german, python_code, scripture, stories, tools

Document = Callable[[random.Random], str]

DOMAINS: dict[str, Document] = {
    module.NAME: module.document
    for module in (stories, arithmetic, tools, python_code, german, facts, echo, scripture)
}
# Share of tokens per domain in training.
SHARES: dict[str, float] = {
    "stories": 0.19, "arithmetic": 0.25, "tools": 0.30, "python": 0.04, "german": 0.05,
    "facts": 0.05, "echo": 0.08, "scripture": 0.04,
}  # fmt: skip


def documents(domain: str, split: str, seed: int = 0) -> Iterator[str]:
    """Endless documents of one domain; the same arguments give the same ones.

    split: "train" or "held-out". Generated domains draw held-out documents from another seed;
    scripture's held-out passages are its last tenth, which training never reads.
    """
    rng = random.Random(f"{domain}/{split}/{seed}")
    make = DOMAINS[domain]
    if domain == scripture.NAME and split == "held-out":
        make = scripture.held_out_document
    while True:
        yield make(rng)
