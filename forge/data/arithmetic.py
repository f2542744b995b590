"""Two-digit addition and subtraction, with a held-out share that training never sees."""

from __future__ import annotations

import hashlib
import random

from forge.data.chat import turns

NAME = "arithmetic"
HELD_OUT_PERCENT = 5


def held_out(op: str, a: int, b: int) -> bool:
    """True for the pairs that must not occur in training; a + b and b + a are one pair."""
    if op == "+" and a > b:
        a, b = b, a
    digest = hashlib.sha256(f"{a}{op}{b}".encode()).digest()
    return digest[0] * 256 + digest[1] < 65536 * HELD_OUT_PERCENT // 100


def result(op: str, a: int, b: int) -> int:
    return a + b if op == "+" else a - b


def problem(rng: random.Random) -> tuple[str, int, int]:
    while True:
        op, a, b = rng.choice("+-"), rng.randrange(100), rng.randrange(100)
        if op == "-" and a < b and rng.random() < 0.5:
            a, b = b, a
        if not held_out(op, a, b):
            return op, a, b


def question(rng: random.Random, op: str, a: int, b: int) -> str:
    word, verb = ("plus", f"Add {a} and {b}") if op == "+" else ("minus", f"Subtract {b} from {a}")
    return rng.choice(
        (
            f"What is {a} {op} {b}?",
            f"What is {a} {op} {b}?",
            f"What is {a} {op} {b}?",
            f"What is {a} {word} {b}?",
            f"{a} {op} {b}",
            f"{a}{op}{b}",
            f"{a} {op} {b} = ?",
            f"{a} {op} {b} =",
            f"{a}{op}{b}=?",
            f"Calculate {a} {op} {b}.",
            f"How much is {a} {op} {b}?",
            f"How much is {a} {word} {b}?",
            f"what is {a} {op} {b}",
            f"{verb}.",
            f"{verb}.",
            f"What's {a} {op} {b}?",
            f"What's {a} {word} {b}?",
            f"{a} {word} {b}",
            f"Compute {a} {op} {b}.",
            f"Can you compute {a} {op} {b}?",
            f"Tell me what {a} {op} {b} is.",
            f"What does {a} {op} {b} equal?",
            f"Solve {a} {op} {b}.",
            f"What is the sum of {a} and {b}?"
            if op == "+"
            else f"What is the difference of {a} and {b}?",
            f"Please add {a} and {b}." if op == "+" else f"What is {a}{op}{b}?",
        )
    )


def answer(op: str, a: int, b: int) -> str:
    return f"{a} {op} {b} = {result(op, a, b)}."


def document(rng: random.Random) -> str:
    if rng.random() < 0.5:
        items = [problem(rng) for _ in range(rng.randint(4, 16))]
        return "\n".join(answer(op, a, b) for op, a, b in items)
    count = 1 if rng.random() < 0.5 else rng.randint(2, 5)
    texts: list[str] = []
    for _ in range(count):
        op, a, b = problem(rng)
        texts += [question(rng, op, a, b), answer(op, a, b)]
    return turns(*texts)
