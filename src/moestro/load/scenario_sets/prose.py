"""Text out of a random number generator that a tokenizer takes for ordinary English."""

from __future__ import annotations

import random

_PEOPLE = (
    "Marta", "Jonas", "Aiko", "Tomasz", "Leila", "Pedro", "Ingrid", "Samuel", "Nadia", "Victor",
    "Priya", "Oskar", "Chiara", "Dmitri", "Hannah", "Kwame", "Yusuf", "Elena", "Bruno", "Sofia",
)  # fmt: skip
_ROLES = (
    "the harbour master", "a retired teacher", "the night nurse", "an apprentice baker",
    "the station clerk", "a travelling surveyor", "the museum guard", "a young lawyer",
    "the lighthouse keeper", "a bicycle mechanic", "the town librarian", "an amateur astronomer",
)  # fmt: skip
_DEEDS = (
    "repaired", "described", "sold", "measured", "painted", "borrowed", "catalogued", "moved",
    "photographed", "inspected", "returned", "misplaced", "replaced", "cleaned", "counted",
)  # fmt: skip
_THINGS = (
    "the old pump", "seven crates of oranges", "a map of the valley", "the broken telescope",
    "two letters from the council", "the copper kettle", "a box of spare gears",
    "the minutes of the last meeting", "an unsigned contract", "the garden wall",
    "a crate of window glass", "the weather records", "a small printing press", "the spare keys",
)  # fmt: skip
_PLACES = (
    "behind the mill", "in the railway yard", "on the upper floor", "near the river bridge",
    "at the edge of the market", "in a rented workshop", "beside the chapel", "under the arcade",
    "on the northern pier", "in the reading room", "outside the post office",
)  # fmt: skip
_TIMES = (
    "before sunrise", "during the long rain", "on the second Tuesday of March",
    "late in the autumn", "after the holiday", "just before closing time", "in the hot weeks",
    "while the ferry was delayed", "at noon", "some years after the flood",
)  # fmt: skip
_REASONS = (
    "because nobody else had offered", "although the price had risen", "so that work could go on",
    "since the insurance required it", "even if it took all day", "as the committee had asked",
    "because the first attempt had failed", "although it was not strictly allowed",
)  # fmt: skip
_REMARKS = (
    "It cost {number} crowns.", "The report ran to {number} pages.",
    "Only {number} people noticed.", "That left {number} hours for everything else.",
    "The receipt bears the number {number}.", "There had been {number} complaints by then.",
)  # fmt: skip
_COMMON = """
able about above across act active add afraid after again age ago agree air all allow alone along
already always among amount and angle animal answer any apple area arm around arrive ask autumn
away baby back ball bank base basket bath bean bear beat become bed before begin behind believe
bell below best better between big bird bit black block blood blue board boat body bone book
bottle bottom box boy branch bread break bridge bright bring brother brown build burn busy butter
buy call camp capital car care carry case catch cause cell center chance change check child choose
circle city class clean clear climb clock close cloth cloud coast cold collect color come common
complete cook cool copy corn corner cost count country course cover cross crowd cry current cut
dance dark day dead deal decide deep desert design desk develop dinner direct discover distance
doctor dog door down draw dream dress drink drive drop dry dust duty each ear early earth east
easy eat edge effect egg eight either electric else end enemy energy engine enough enter equal
even evening event ever every example except expect eye face fact fair fall family famous far farm
fast father favor fear feel few field fight figure fill final find fine finger finish fire first
fish five flat floor flow flower fly follow food foot force forest form forward four free fresh
friend front fruit full game garden gather gentle girl give glad glass gold good grand grass great
green ground group grow guess guide hair half hall hand happen hard hat head hear heart heat heavy
help here high hill history hold hole home hope horse hot hour house human hundred hunt hurry ice
idea inch increase insect iron island job join joy jump keep key kind king know lady lake land
language large last late laugh law lead learn leave left leg length less letter level lie life
lift light like line list listen little live log long look lost loud love low machine main make
many map mark market master match matter mean measure meat meet metal method middle mile milk mind
minute moment money month moon morning mother mountain mouth move music name narrow nation nature
near neck need never new next night nine noise north nose note nothing notice number object ocean
off office oil old open opposite orange order other out over own page pair paper part party pass
past path pay people perhaps person picture piece place plain plan plane plant play please point
poor position post pound power press pretty print problem produce proper protect prove pull push
quart question quick quiet race rain raise reach ready real reason record red region remember
repeat reply rest rice rich ride right ring rise river road rock roll room root rope rose round
row rule run safe sail salt same sand save say scale school science score sea search season seat
second see seed sell send sense serve settle seven shape share sharp sheet shell shine ship shoe
shop shore short shoulder show side sign silent silver simple single sister six size skill skin
sleep slip slow small smell smile snow soft soil soldier son song soon sound south space speak
special speech spell spend spring square stand star start state station stay steam steel step
stick still stone stood stop store storm story straight strange stream street string strong
student study subject sudden sugar suit summer sun supply surface surprise sweet swim system table
tail talk tall teach team tell ten test thank thick thin thing think third thousand three tie time
tiny tire tone tool top total touch town track trade train travel tree triangle trip trouble truck
true try tube turn twenty two type under unit until usual valley value vary verb very view village
visit voice vowel wait walk wall want war warm wash watch water wave way weather week weight west
wheel white whole wide wife wild wind window wing winter wish woman wonder wood word work world
write wrong yard year yellow yes young
"""
WORDS = tuple(_COMMON.split())


class Writer:
    """Writes what one generator draws: the same text again for the same seed."""

    def __init__(self, *seed: object) -> None:
        # A string's hash differs from run to run; `Random` digests the string itself.
        self.chance = random.Random(" ".join(map(str, seed)))

    def heading(self) -> str:
        """A few words that hardly occur twice: texts that begin with one share no prefix."""
        chance = self.chance
        return f"{chance.choice(WORDS).capitalize()} {chance.choice(WORDS)} {self.number()}"

    def number(self) -> int:
        return self.chance.randrange(100, 1_000_000)

    def name(self) -> str:
        return self.chance.choice(_PEOPLE)

    def sentence(self) -> str:
        chance = self.chance
        if chance.random() < 0.2:
            return chance.choice(_REMARKS).format(number=chance.randrange(2, 900))
        who = self.name() if chance.random() < 0.5 else chance.choice(_ROLES)
        parts = [f"{who} {chance.choice(_DEEDS)} {chance.choice(_THINGS)}"]
        if chance.random() < 0.7:
            parts.append(chance.choice(_PLACES))
        if chance.random() < 0.6:
            parts.append(chance.choice(_TIMES))
        text = " ".join(parts)
        if chance.random() < 0.4:
            text = f"{text}, {chance.choice(_REASONS)}"
        return f"{text[0].upper()}{text[1:]}."

    def text(self, characters: float) -> str:
        """Sentences, cut between two words at about so many characters; never empty."""
        sentences: list[str] = []
        length = 0
        while length < characters or not sentences:
            sentences.append(self.sentence())
            length += len(sentences[-1]) + 1
        return cut(" ".join(sentences), characters)

    def words(self, characters: float) -> str:
        """Unconnected words of about so many characters together; never empty."""
        words: list[str] = []
        length = 0
        while length < characters or not words:
            words.append(self.chance.choice(WORDS))
            length += len(words[-1]) + 1
        return cut(" ".join(words), characters)


def cut(text: str, characters: float) -> str:
    """Its beginning, up to the last whole word within so many characters, and at least one word."""
    limit = int(characters)
    if len(text) <= limit:
        return text
    end = text.rfind(" ", 0, limit + 1)
    if end <= 0:
        end = text.find(" ")
    return text[:end] if end > 0 else text
