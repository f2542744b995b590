"""The second language: short German sentences and dialogues."""

from __future__ import annotations

import random

from forge.data.chat import turns

NAME = "german"

PEOPLE = (  # noqa: SIM905
    "Anna Ben Clara David Emma Felix Greta Jonas Lena Lukas Maria Paul Peter Sophie Tim"
).split()
# (nominative, accusative) with articles
THINGS = (
    ("der Apfel", "den Apfel"), ("das Brot", "das Brot"), ("die Suppe", "die Suppe"),
    ("der Kuchen", "den Kuchen"), ("das Buch", "das Buch"), ("die Zeitung", "die Zeitung"),
    ("der Schlüssel", "den Schlüssel"), ("das Fahrrad", "das Fahrrad"),
    ("die Tasche", "die Tasche"),
    ("der Brief", "den Brief"), ("das Bild", "das Bild"), ("die Lampe", "die Lampe"),
)  # fmt: skip
ANIMALS = ("der Hund", "die Katze", "das Pferd", "der Vogel", "die Kuh", "der Fuchs", "die Maus")
PLACES = ("im Garten", "in der Küche", "auf dem Markt", "am See", "im Wald", "in der Schule",
          "auf der Straße", "am Bahnhof", "zu Hause", "in der Stadt")  # fmt: skip
TIMES = ("heute", "morgen früh", "am Abend", "jeden Tag", "am Sonntag", "im Sommer", "im Winter")
ADJECTIVES = ("groß", "klein", "alt", "neu", "schön", "rot", "blau", "grün", "teuer", "gut")
ANIMAL_VERBS = ("schläft", "spielt", "wartet", "läuft", "sitzt")
PERSON_VERBS = ("arbeitet", "lernt", "singt", "wartet", "liest", "spielt", "kocht")
THING_VERBS = ("sucht", "kauft", "findet", "bringt", "sieht", "nimmt")


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def sentence(r: random.Random) -> str:
    person, other = r.sample(PEOPLE, 2)
    thing = r.choice(THINGS)
    time = r.choice(TIMES)
    place = r.choice(PLACES)
    return r.choice((
        f"{capital(r.choice(ANIMALS))} {r.choice(ANIMAL_VERBS)} {place}.",
        f"{person} {r.choice(PERSON_VERBS)} {time} {place}.",
        f"{capital(time)} {r.choice(PERSON_VERBS)} {person} {place}.",
        f"{person} {r.choice(THING_VERBS)} {thing[1]}.",
        f"{capital(thing[0])} ist {r.choice(ADJECTIVES)}.",
        f"{capital(thing[0])} ist nicht {r.choice(ADJECTIVES)}, sondern {r.choice(ADJECTIVES)}.",
        f"{person} und {other} sind {place}.",
        f"{person} fragt: Wo ist {thing[0]}?",
        f"Ich sehe {thing[1]}, aber ich sehe {other} nicht.",
        f"Wir gehen {time} spazieren.",
        f"Das Wetter ist {time} schön.",
        f"{person} hat {r.choice(('zwei', 'drei', 'vier'))} "
        f"{r.choice(('Brüder', 'Schwestern', 'Kinder'))}.",
    ))  # fmt: skip


FIXED = (
    ("Hallo!", "Hallo! Wie kann ich dir helfen?"),
    ("Guten Tag!", "Guten Tag! Wie kann ich dir helfen?"),
    ("Guten Morgen!", "Guten Morgen! Wie geht es dir?"),
    ("Wie geht es dir?", "Danke, mir geht es gut. Und dir?"),
    ("Wer bist du?", "Ich bin das kleine Demo-Modell von moestro."),
    ("Wie heißt du?", "Ich bin das kleine Demo-Modell von moestro."),
    ("Sprichst du Deutsch?", "Ja, ich spreche ein wenig Deutsch."),
    ("Danke!", "Bitte schön!"),
    ("Auf Wiedersehen!", "Auf Wiedersehen und bis bald!"),
    ("Wie ist das Wetter?", "Das weiß ich leider nicht."),
    ("Was kannst du?", "Ich kann kleine Geschichten erzählen, rechnen und Werkzeuge aufrufen."),
)  # fmt: skip


def exchange(r: random.Random) -> tuple[str, str]:
    person = r.choice(PEOPLE)
    thing = r.choice(THINGS)
    place = r.choice(PLACES)
    adjective = r.choice(ADJECTIVES)
    return r.choice((
        (f"Wo ist {person}?", f"{person} ist {place}."),
        (f"Wo ist {thing[0]}?", f"{capital(thing[0])} ist {place}."),
        (f"Wie ist {thing[0]}?", f"{capital(thing[0])} ist {adjective}."),
        ("Was siehst du?", f"Ich sehe {thing[1]}."),
        (f"Was macht {person}?", f"{person} {r.choice(PERSON_VERBS)} {place}."),
        (f"Hast du {thing[1]}?", f"Ja, ich habe {thing[1]}."),
        r.choice(FIXED), r.choice(FIXED), r.choice(FIXED),
    ))  # fmt: skip


def document(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.4:
        return " ".join(sentence(rng) for _ in range(rng.randint(4, 12)))
    if roll < 0.6:
        return turns("Schreibe einen kurzen Text auf Deutsch.",
                     " ".join(sentence(rng) for _ in range(rng.randint(3, 7))))  # fmt: skip
    return turns(*(text for _ in range(rng.randint(1, 4)) for text in exchange(rng)))
