"""Answers that are found in the question: repeating words, remembering who is where."""

from __future__ import annotations

import random

from forge.data.chat import turns
from forge.data.stories import ANIMALS, BOYS, FOODS, GIRLS, LOST
from forge.data.tools import CITIES, PEOPLE, THINGS, invented

NAME = "echo"

WORDS = (*ANIMALS, *FOODS, *CITIES, *PEOPLE, *THINGS)


def word(r: random.Random) -> str:
    if r.random() < 0.4:
        made = invented(r)
        return made.capitalize() if r.random() < 0.5 else made
    return r.choice(WORDS)


def repeat(r: random.Random) -> tuple[str, str]:
    text = " ".join(word(r) for _ in range(r.randint(1, 8)))
    return r.choice((f"Repeat: {text}", f"Say {text}", f"Please repeat: {text}",
                     f"Write this again: {text}")), text  # fmt: skip


def quoted(r: random.Random) -> tuple[str, str]:
    text = " ".join(word(r) for _ in range(r.randint(1, 3)))
    return f"Put this in quotes: {text}", f'"{text}"'


def naming(r: random.Random) -> tuple[str, str]:
    name = r.choice((*GIRLS, *BOYS, invented(r).capitalize()))
    return r.choice((
        (f"My name is {name}. What is my name?", f"Your name is {name}."),
        (f"Hello, I am {name}.", f"Hello {name}! How can I help you?"),
        (f"My name is {name}.", f"Hello {name}! How can I help you?"),
    ))  # fmt: skip


def where(r: random.Random) -> tuple[str, str]:
    names = r.sample((*GIRLS, *BOYS), r.randint(2, 3))
    cities = r.sample(CITIES, len(names))
    pick = r.randrange(len(names))
    facts = " ".join(f"{n} lives in {c}." for n, c in zip(names, cities, strict=True))
    return r.choice((
        (f"{facts} Where does {names[pick]} live?", f"{names[pick]} lives in {cities[pick]}."),
        (f"{facts} Who lives in {cities[pick]}?", f"{names[pick]} lives in {cities[pick]}."),
    ))  # fmt: skip


def has(r: random.Random) -> tuple[str, str]:
    names = r.sample((*GIRLS, *BOYS), 2)
    things = r.sample(LOST, 2)
    pick = r.randrange(2)
    facts = " ".join(f"{n} has a {t}." for n, t in zip(names, things, strict=True))
    return f"{facts} What does {names[pick]} have?", f"{names[pick]} has a {things[pick]}."


MAKERS = (repeat, repeat, repeat, quoted, naming, where, has)


def document(rng: random.Random) -> str:
    return turns(*(t for _ in range(rng.randint(1, 4)) for t in rng.choice(MAKERS)(rng)))
