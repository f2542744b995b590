"""Greetings, who the model is, and a few plain facts."""

from __future__ import annotations

import random

from forge.data.chat import render

NAME = "facts"

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome",
    "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Ireland": "Dublin", "England": "London", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima", "Canada": "Ottawa",
    "Hungary": "Budapest", "Russia": "Moscow", "Turkey": "Ankara", "Cuba": "Havana",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "young", "light": "dark", "high": "low",
    "good": "bad", "happy": "sad", "open": "closed", "full": "empty", "hard": "soft", "dry": "wet",
    "early": "late", "near": "far", "loud": "quiet", "rich": "poor", "strong": "weak",
    "long": "short",
}  # fmt: skip
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "blood": "red",
    "coal": "black", "a lemon": "yellow", "the sun": "yellow", "milk": "white",
    "a carrot": "orange",
}  # fmt: skip
LEGS = {"a dog": "four", "a cat": "four", "a bird": "two", "a spider": "eight", "an ant": "six",
        "a horse": "four", "a snake": "no", "a duck": "two", "a bee": "six",
        "a cow": "four"}  # fmt: skip
SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "lion": "roars",
          "bird": "sings", "bee": "buzzes", "wolf": "howls", "sheep": "bleats",
          "frog": "croaks"}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
MONTHS = (  # noqa: SIM905
    "January February March April May June July August September October November December"
).split()

WHO = "I am the demo model of moestro, a small mixture-of-experts language model."
CAN = ("I can tell short stories, add and subtract two-digit numbers, call tools, write a little "
       "Python and speak some German.")  # fmt: skip
TALK = (
    (("Who are you?", "What are you?", "who are you", "Tell me about yourself.",
      "Introduce yourself.", "What is your name?", "Are you a human?", "What model are you?"), WHO),
    (("What can you do?", "What can you help me with?", "How can you help me?", "Help"), CAN),
    (("Hello!", "Hi!", "Hello", "hello", "Hi", "hi", "Hey!", "Hello there!"),
     "Hello! How can I help you?"),
    (("Good morning!", "Good morning."), "Good morning! How can I help you?"),
    (("Good evening!", "Good evening."), "Good evening! How can I help you?"),
    (("How are you?", "How are you today?", "How do you do?"),
     "I am fine, thank you. How can I help you?"),
    (("Thank you!", "Thanks!", "Thank you very much."), "You are welcome."),
    (("Goodbye!", "Bye!", "See you!"), "Goodbye! See you soon."),
    (("What is moestro?", "What does moestro do?", "Tell me about moestro."),
     "moestro deploys mixture-of-experts language models on your own hardware."),
    (("What is a mixture of experts?", "What is a mixture-of-experts model?"),
     "A model with many small networks, the experts. A router picks a few of them for "
     "every token."),
    (("How many experts do you have?", "How many experts are in you?"),
     "I have 16 experts in each layer, and I use two of them for every token."),
    (("Are you big?", "How big are you?", "Are you a large model?"),
     "No, I am very small. I know little, and I make mistakes."),
    (("Who made you?", "Who trained you?"), "The makers of moestro trained me, on two CPU cores."),
)  # fmt: skip


SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant.", "Be brief.")


def question(r: random.Random) -> tuple[str, str]:
    roll = r.randrange(9)
    if roll == 0:
        land, capital = r.choice(list(CAPITALS.items()))
        return r.choice((
            (f"What is the capital of {land}?", f"The capital of {land} is {capital}."),
            (f"Where is {capital}?", f"{capital} is in {land}."),
        ))  # fmt: skip
    if roll == 1:
        a, b = r.choice(list(OPPOSITES.items()))
        a, b = r.choice(((a, b), (b, a)))
        return f"What is the opposite of {a}?", f"The opposite of {a} is {b}."
    if roll == 2:
        thing, colour = r.choice(list(COLOURS.items()))
        return f"What color is {thing}?", f"{thing[0].upper() + thing[1:]} is {colour}."
    if roll == 3:
        animal, legs = r.choice(list(LEGS.items()))
        return (f"How many legs does {animal} have?",
                f"{animal[0].upper() + animal[1:]} has {legs} legs.")  # fmt: skip
    if roll == 4:
        animal, sound = r.choice(list(SOUNDS.items()))
        return f"What does a {animal} do?", f"A {animal} {sound}."
    if roll == 5:
        names = r.choice((DAYS, MONTHS))
        i = r.randrange(len(names) - 1)
        return r.choice((
            (f"What comes after {names[i]}?", f"After {names[i]} comes {names[i + 1]}."),
            (f"What comes before {names[i + 1]}?", f"Before {names[i + 1]} comes {names[i]}."),
        ))  # fmt: skip
    asks, answer = r.choice(TALK)
    return r.choice(asks), answer


def document(rng: random.Random) -> str:
    messages: list[dict[str, str]] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        ask, answer = question(rng)
        messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    return render(messages)
