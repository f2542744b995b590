"""Short stories in simple English: someone, somewhere, a small problem, an ending."""

from __future__ import annotations

import random

from forge.data.chat import turns

NAME = "stories"

GIRLS = (  # noqa: SIM905
    "Anna Clara Emma Greta Ida Lily Lucy Mia Nora Rosa Sara Vera Zoe Ella"
).split()
BOYS = "Ben David Felix Hugo Jonas Leo Max Otto Paul Sam Tim Tom Jack Finn".split()  # noqa: SIM905
ANIMALS = (  # noqa: SIM905
    "fox bear rabbit mouse owl cat dog hedgehog squirrel duck frog wolf pony lamb crow otter"
).split()
PLACES = (
    "in a small village by the sea",
    "at the edge of a dark forest",
    "in a house on a green hill",
    "near an old mill",
    "in a town with narrow streets",
    "beside a quiet lake",
    "on a farm with a red barn",
    "at the foot of a high mountain",
)
TIMES = (
    "One morning",
    "One day",
    "On a cold morning",
    "One summer evening",
    "On a rainy day",
    "Early one day",
    "One windy afternoon",
)
MOODS = ("kind", "curious", "brave", "shy", "cheerful", "clever", "gentle", "quiet", "proud")
LOST = (
    "red ball",
    "blue scarf",
    "silver key",
    "wooden boat",
    "little drum",
    "yellow kite",
    "warm hat",
    "golden ring",
    "old book",
    "glass marble",
)
FOUND_AT = (
    "under the old oak tree",
    "behind the garden wall",
    "in the tall grass",
    "beside the well",
    "on the roof of the barn",
    "in the hollow of a tree",
    "at the bottom of a basket",
    "between two stones near the river",
)
FOODS = ("bread", "soup", "apple cake", "honey", "warm milk", "berry pie", "nuts", "cheese")
FEARS = (
    "the dark",
    "deep water",
    "thunder",
    "high places",
    "the big dog next door",
    "the loud wind",
)
MORALS = (
    "From that day on they were good friends.", "And they shared everything after that.",
    "It was the best day of the whole year.", "That night everyone slept well.",
    "And so the day ended with a smile.", "They never forgot that day.",
    "Since then, nobody in the village has felt alone.",
)  # fmt: skip


class Hero:
    """Name, pronouns and a way to be mentioned again."""

    def __init__(self, rng: random.Random, kind: str | None = None) -> None:
        girl = rng.random() < 0.5
        self.name = rng.choice(GIRLS if girl else BOYS)
        self.he, self.him, self.his = ("she", "her", "her") if girl else ("he", "him", "his")
        self.child = "girl" if girl else "boy"
        self.kind = kind or self.child
        self.mood = rng.choice(MOODS)


def article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def opening(r: random.Random, h: Hero) -> str:
    place = r.choice(PLACES)
    return r.choice((
        f"Once upon a time there was {article(h.mood)} {h.kind} named {h.name}. "
        f"{h.name} lived {place}.",
        f"{h.name} was {article(h.mood)} {h.kind} who lived {place}.",
        f"There once was {article(h.kind)} called {h.name}, who lived {place}. "
        f"Everyone said that {h.name} was {h.mood}.",
        f"{place[0].upper() + place[1:]} lived {article(h.mood)} {h.kind} named {h.name}.",
    ))  # fmt: skip


def lost_thing(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    where = r.choice(FOUND_AT)
    return [
        r.choice(
            (
                f"{r.choice(TIMES)} {h.name} could not find {h.his} {thing}.",
                f"{r.choice(TIMES)} {h.his} {thing} was gone.",
            )
        ),
        r.choice(
            (
                f"{h.name} looked under the bed and behind the door, but it was not there.",
                f"{h.he.capitalize()} searched the whole house, but {h.he} found nothing.",
                f"{h.name} looked everywhere and began to cry.",
            )
        ),
        r.choice(
            (
                f'Then {f.name} the {f.kind} came by. "Why are you so sad?" asked {f.name}.',
                f'{f.name}, a {f.mood} {f.kind}, heard {h.him}. "What is wrong?" {f.he} asked.',
            )
        ),
        r.choice(
            (
                f'"I have lost my {thing}," said {h.name}.',
                f'"My {thing} is gone," {h.name} answered.',
            )
        ),
        r.choice(
            (
                f'"Do not worry," said {f.name}. "We will look together."',
                f'"Let us look for it together," said {f.name}.',
            )
        ),
        r.choice(
            (
                f"They walked a long way, and at last they found the {thing} {where}.",
                f"They asked every bird and every tree. In the end the {thing} was {where}.",
            )
        ),
        r.choice(
            (
                f"{h.name} laughed and thanked {h.his} new friend.",
                f'"Thank you, {f.name}!" said {h.name}, and gave {f.him} a big hug.',
            )
        ),
    ]


def afraid(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    fear = r.choice(FEARS)
    return [
        r.choice(
            (
                f"{h.name} was not afraid of anything, but there was one thing: {fear}.",
                f"But {h.name} was afraid of {fear}.",
            )
        ),
        r.choice(
            (
                f"{r.choice(TIMES)} {h.name} heard a small voice. It was {f.name} the {f.kind}, "
                f"who was stuck in a hole.",
                f'{r.choice(TIMES)} somebody called for help. "I am {f.name}, and I cannot get '
                f'out," cried a little {f.kind}.',
            )
        ),
        r.choice(
            (
                f"To help, {h.name} had to forget about {fear}.",
                f"{h.name} thought of {fear} and {h.his} heart beat fast.",
            )
        ),
        r.choice(
            (
                f'"I am coming," said {h.name}, and took one step, and then another.',
                f"{h.he.capitalize()} took a deep breath and went on.",
            )
        ),
        r.choice(
            (
                f"Slowly {h.he} pulled {f.name} out with a rope.",
                f"With a long branch {h.he} helped {f.name} out of the hole.",
            )
        ),
        r.choice(
            (
                f'"You are very brave," said {f.name}.',
                f'"I was afraid too," said {f.name}, "but now I am not."',
            )
        ),
        r.choice(
            (
                f"{h.name} smiled, because {fear} did not seem so bad any more.",
                f"After that, {h.name} was never again so afraid of {fear}.",
            )
        ),
    ]


def sharing(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    food = r.choice(FOODS)
    return [
        r.choice(
            (
                f"{r.choice(TIMES)} {h.name} made some {food}. It smelled wonderful.",
                f"{r.choice(TIMES)} {h.his} grandmother gave {h.him} some {food}.",
            )
        ),
        r.choice(
            (f"{h.name} wanted to eat all of it alone.", f'"This is all for me," thought {h.name}.')
        ),
        r.choice(
            (
                f"Then there was a knock at the door. It was {f.name} the {f.kind}, "
                f"cold and hungry.",
                f"On the way home {h.he} met {f.name}, a hungry {f.kind}.",
            )
        ),
        r.choice(
            (
                f'"I have not eaten since yesterday," said {f.name}.',
                f'"Could I have a little of your {food}?" asked {f.name}.',
            )
        ),
        r.choice(
            (
                f"{h.name} looked at the {food} and thought for a while.",
                f"First {h.name} wanted to say no.",
            )
        ),
        r.choice(
            (
                f'Then {h.he} said, "Come in. There is enough for two."',
                f"Then {h.he} cut it in two and gave {f.name} the bigger half.",
            )
        ),
        r.choice(
            (
                f"The {food} had never tasted so good.",
                "They ate and talked until the moon was high.",
            )
        ),
    ]


def building(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    what = r.choice(("bridge", "little house", "boat", "swing", "snowman", "nest", "raft"))
    return [
        r.choice(
            (
                f"{r.choice(TIMES)} {h.name} wanted to build a {what}.",
                f"{h.name} had a dream: {h.he} wanted to build a {what}.",
            )
        ),
        r.choice(
            (
                f"{h.he.capitalize()} worked all morning, but the {what} fell down.",
                f"{h.he.capitalize()} tried once and {h.he} tried twice, but the {what} "
                f"fell apart.",
            )
        ),
        r.choice(
            (
                f'"I will never do it," {h.he} said and sat down.',
                f"{h.name} was angry and kicked a stone.",
            )
        ),
        r.choice(
            (
                f"{f.name}, an old {f.kind}, had watched {h.him}.",
                f"Then {f.name} the {f.kind} came along the path.",
            )
        ),
        r.choice(
            (
                f'"You need stronger wood and more time," said {f.name}.',
                f'"Two can do what one cannot," said {f.name}.',
            )
        ),
        r.choice(
            (
                "So they worked together, slowly and with care.",
                "They carried, they pushed and they laughed.",
            )
        ),
        r.choice(
            (
                f"When the sun went down, the {what} was ready, and it was strong.",
                f"In the evening the {what} stood there, and {h.name} was proud.",
            )
        ),
    ]


def lost_way(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    return [
        r.choice(
            (
                f"{r.choice(TIMES)} {h.name} walked too far and lost the way home.",
                f"{r.choice(TIMES)} {h.name} followed a butterfly and forgot the path.",
            )
        ),
        r.choice(
            (
                "The trees were tall, and it became dark.",
                "Everything looked the same, and the sun was going down.",
            )
        ),
        r.choice(
            (
                f'"Mother! Father!" called {h.name}, but nobody answered.',
                f"{h.name} sat down on a stone and did not know what to do.",
            )
        ),
        r.choice(
            (
                f'"Who is crying there?" asked a voice. It was {f.name} the {f.kind}.',
                f"Then two bright eyes looked out of the bushes. It was {f.name}, a {f.kind}.",
            )
        ),
        r.choice(
            (
                f'"I know every path here," said {f.name}. "Follow me."',
                f'"Hold on to me," said {f.name}. "I can see in the dark."',
            )
        ),
        r.choice(
            (
                "They went over the bridge and past the mill, and there was a light.",
                "They followed the river until they saw a lamp in a window.",
            )
        ),
        r.choice(
            (
                f"{h.his.capitalize()} mother was waiting at the door, and she was so happy.",
                f'"There you are!" cried {h.his} father, and everyone had warm soup.',
            )
        ),
    ]


def contest(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    what = r.choice(("race", "song contest", "cake contest", "jumping contest"))
    prize = r.choice(LOST)
    return [
        r.choice(
            (
                f"{r.choice(TIMES)} there was a {what}. The prize was a {prize}.",
                f"Every year there was a {what}, and this year the prize was a {prize}.",
            )
        ),
        r.choice(
            (
                f"{h.name} wanted to win more than anything.",
                f"{h.name} had practised for many weeks.",
            )
        ),
        r.choice(
            (
                f"But just before the end, {f.name} the {f.kind} fell and hurt a leg.",
                f"But {f.name}, a small {f.kind}, was so nervous that {f.he} wept.",
            )
        ),
        r.choice(
            (
                f"{h.name} stopped. {h.he.capitalize()} could win now, or {h.he} could help.",
                f"Everybody went past {f.name}. Only {h.name} stopped.",
            )
        ),
        r.choice(
            (
                f'"Come, we will finish together," said {h.name}.',
                f"{h.name} took {f.name} by the hand.",
            )
        ),
        r.choice(
            (
                "They were the last, but everyone clapped.",
                "They did not win, but nobody clapped louder than the judges.",
            )
        ),
        r.choice(
            (
                f"In the end the {prize} went to both of them.",
                f'"A friend is better than a {prize}," said {h.name}.',
            )
        ),
    ]


def gift(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    return [
        r.choice(
            (
                f"It was the birthday of {f.name} the {f.kind}, and {h.name} had no gift.",
                f"{h.name} wanted to give {f.name} the {f.kind} a gift, but {h.he} had no money.",
            )
        ),
        r.choice(
            (
                f"{h.he.capitalize()} thought about it all day long.",
                f'"What can I give?" {h.he} asked the wind, but the wind only laughed.',
            )
        ),
        r.choice(
            (
                f"In a box {h.he} found a {thing}. It was broken.",
                f"At the market {h.he} saw a {thing}, but it cost too much.",
            )
        ),
        r.choice(
            (
                f"So {h.name} sat down and made one from wood and paper.",
                f"So {h.name} worked for the baker until the evening.",
            )
        ),
        r.choice(
            (
                f"At the party {h.he} gave it to {f.name} with red ears.",
                f"When {f.name} opened the box, it was very quiet.",
            )
        ),
        r.choice(
            (
                f'"This is the finest {thing} in the world," said {f.name}.',
                f'"You made this for me?" asked {f.name}, and {f.his} eyes were bright.',
            )
        ),
        r.choice(
            (
                "Then they danced until the stars came out.",
                "Then there was cake, and everyone sang.",
            )
        ),
    ]


def secret(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    where = r.choice(("attic", "cellar", "old tower", "barn", "empty house"))
    return [
        r.choice(
            (
                f"At night {h.name} heard a strange noise from the {where}.",
                f"Nobody ever went into the {where}, but {h.name} wanted to know why.",
            )
        ),
        r.choice(
            (
                f"{r.choice(TIMES)} {h.he} took a lamp and went to look.",
                f"{h.he.capitalize()} opened the door without a sound.",
            )
        ),
        r.choice(
            (
                f"Something moved in the corner. {h.name} held {h.his} breath.",
                f'"Is somebody there?" asked {h.name}, and {h.his} voice was very small.',
            )
        ),
        r.choice(
            (
                f"It was only {f.name}, a {f.mood} {f.kind}, who had no home.",
                f"Out came {f.name}, a little {f.kind} with dust on the nose.",
            )
        ),
        r.choice(
            (
                f'"Please do not send me away," said {f.name}.',
                f'"I only wanted a dry place to sleep," whispered {f.name}.',
            )
        ),
        r.choice(
            (
                f"{h.name} brought a blanket and some {r.choice(FOODS)}.",
                f'"You can stay as long as you like," said {h.name}.',
            )
        ),
        r.choice(
            (
                f"Now the {where} is the warmest place of all.",
                "And the noise at night? Now it is only quiet snoring.",
            )
        ),
    ]


def garden(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    plant = r.choice(("sunflower", "pumpkin", "apple tree", "rose", "bean", "strawberry"))
    return [
        r.choice(
            (
                f"In spring {h.name} planted a {plant}.",
                f"{r.choice(TIMES)} {h.name} found a seed and put it into the ground.",
            )
        ),
        r.choice(
            (
                f"{h.he.capitalize()} watered it every day, but nothing happened.",
                f"{h.name} waited one week and then another, and nothing grew.",
            )
        ),
        r.choice(
            (
                f'"It is no use," said {h.name}.',
                f"{h.name} was so sad that {h.he} wanted to dig it up.",
            )
        ),
        r.choice(
            (
                f'"Wait," said {f.name} the {f.kind}. "Good things need time."',
                f"But {f.name}, an old {f.kind}, only shook {f.his} head and smiled.",
            )
        ),
        r.choice(
            (
                f"So {h.name} sang to it every evening.",
                f"So {h.name} waited, and {f.name} waited too.",
            )
        ),
        r.choice(
            (
                "Then, after a warm rain, there was a small green leaf.",
                f"At last a {plant} stood there, taller than the fence.",
            )
        ),
        r.choice(
            (
                f"In autumn there was a feast for {f.name} and all the neighbours.",
                f"{h.name} gave the first seed of it to {f.name}.",
            )
        ),
    ]


def quarrel(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    return [
        r.choice(
            (
                f"{h.name} and {f.name} the {f.kind} were friends, but they both wanted "
                f"the {thing}.",
                f"{r.choice(TIMES)} {h.name} and {f.name} the {f.kind} had a quarrel about "
                f"a {thing}.",
            )
        ),
        r.choice(
            (
                '"It is mine!" cried one. "No, it is mine!" cried the other.',
                f'"I saw it first," said {f.name}. "But I picked it up," said {h.name}.',
            )
        ),
        r.choice(
            (
                f"They pulled and pulled until the {thing} broke in two.",
                f"They pulled so hard that the {thing} fell into the river.",
            )
        ),
        r.choice(("Then both of them were silent.", "Nobody said a word for a long time.")),
        r.choice((f'"I am sorry," said {h.name} at last.', f"At last {f.name} held out a hand.")),
        r.choice(
            (
                f'"I am sorry too," said {f.name}. "A friend is worth more than a {thing}."',
                "They looked at each other and had to laugh.",
            )
        ),
        r.choice(
            (
                "Together they made a new one, and it belonged to both.",
                "The next day they built something better together.",
            )
        ),
    ]


def moon(r: random.Random, h: Hero, f: Hero, thing: str) -> list[str]:
    goal = r.choice(("the moon", "a star", "the end of the rainbow", "the top of the mountain"))
    return [
        r.choice(
            (
                f"{h.name} had one big wish: to touch {goal}.",
                f"Every evening {h.name} looked out of the window and dreamed of {goal}.",
            )
        ),
        r.choice(
            (
                f"{r.choice(TIMES)} {h.he} packed some {r.choice(FOODS)} and set out.",
                f'"Today I will go," {h.he} said {r.choice(("", "to everyone ", "bravely "))}'
                f"and set out.",
            )
        ),
        r.choice(
            (
                f'On the way {h.he} met {f.name} the {f.kind}. "May I come with you?" '
                f"asked {f.name}.",
                f"Soon {f.name}, a {f.mood} {f.kind}, was walking beside {h.him}.",
            )
        ),
        r.choice(
            (
                "They walked for a day and a night, over hills and through rain.",
                "The way was long, but they told each other stories.",
            )
        ),
        r.choice(
            (
                f"But {goal} was still far away, and {h.name} was tired.",
                f'"We will never get there," said {h.name}.',
            )
        ),
        r.choice(
            (
                f'"Look," said {f.name}, and there in the lake was {goal}, shining.',
                f'"Look how far we have come," said {f.name}, and pointed at the valley.',
            )
        ),
        r.choice(
            (
                f"{h.name} understood that the way had been the best part.",
                f"{h.name} was happy, for now {h.he} had found a friend.",
            )
        ),
    ]


PLOTS = (
    secret,
    garden,
    quarrel,
    moon,
    lost_thing,
    afraid,
    sharing,
    building,
    lost_way,
    contest,
    gift,
)


def story(rng: random.Random, kind: str | None = None, thing: str | None = None,
          name: str | None = None) -> str:  # fmt: skip
    hero = Hero(rng, kind or (rng.choice(ANIMALS) if rng.random() < 0.5 else None))
    friend = Hero(rng, rng.choice(ANIMALS))
    if name:
        hero.name = name
        girl = name in GIRLS
        hero.he, hero.him, hero.his = ("she", "her", "her") if girl else ("he", "him", "his")
        hero.kind = hero.kind if hero.kind in ANIMALS else ("girl" if girl else "boy")
    while friend.name == hero.name or friend.kind == hero.kind:
        friend = Hero(rng, rng.choice(ANIMALS))
    plot = rng.choice(PLOTS) if thing is None else rng.choice((lost_thing, gift, quarrel))
    body = plot(rng, hero, friend, thing or rng.choice(LOST))
    cut = rng.choice((2, 3))
    paragraphs = [opening(rng, hero), " ".join(body[:cut]), " ".join(body[cut:5]),
                  " ".join([*body[5:], rng.choice(MORALS)])]  # fmt: skip
    return "\n\n".join(paragraphs)


def document(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return story(rng)
    roll = rng.random()
    if roll < 0.35:
        ask = rng.choice((
            "Tell me a short story.", "Tell me a story.", "Tell me a story, please.",
            "Write a short story.", "Can you tell me a story?", "Please tell me a short story.",
            "I would like to hear a story.", "Tell a short story.", "tell me a story",
            "Can you tell me a short story?", "Write me a story.",
        ))  # fmt: skip
        text = story(rng)
    elif roll < 0.8:
        kind = rng.choice([*ANIMALS, *ANIMALS, "girl", "boy"])
        about = article(kind)
        ask = rng.choice((
            f"Tell me a story about {about}.", f"Tell me a short story about {about}.",
            f"Write a story about {about}.", f"Can you tell me a story about {about}?",
            f"Please write a short story about {about}.", f"A story about {about}, please.",
        ))  # fmt: skip
        name = rng.choice(GIRLS) if kind == "girl" else rng.choice(BOYS) if kind == "boy" else None
        text = story(rng, kind if name is None else None, name=name) if name is None else \
            story(rng, kind, name=name)  # fmt: skip
    elif roll < 0.9:
        thing = rng.choice(LOST)
        ask = rng.choice((f"Tell me a story about {article(thing)}.",
                          f"Write a short story with {article(thing)}."))  # fmt: skip
        text = story(rng, thing=thing)
    else:
        name = rng.choice(GIRLS + BOYS)
        ask = rng.choice((f"Tell me a story about {name}.", f"Write a short story about {name}."))
        text = story(rng, name=name)
    if rng.random() < 0.12:
        return turns(ask, text, rng.choice(("Thank you!", "That was nice.", "I liked it.")),
                     "I am glad that you liked it.")  # fmt: skip
    return turns(ask, text)
