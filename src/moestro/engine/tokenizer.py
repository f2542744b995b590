"""What the engine's tokenizer makes of a model's vocabulary and of some text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TemplateVerdict = Literal["accepted", "refused", "crashed", "endless"]
"""What the engine's parser makes of a chat template. `crashed`: its process died of it. `endless`:
it takes more time or memory than any template needs."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """`came_back` is the text of the tokens of `text`; they should be the same. `kind` says what
    text it is, in words for people."""

    text: str
    tokens: int
    came_back: str
    kind: str = "plain text"


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The token that the template writes after an answer: its piece, whether the vocabulary marks
    it as special, and whether it ends an answer when the model writes it."""

    piece: str
    special: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """`bos` and `eos` are the pieces (texts) of those tokens, None where there is none; `ends` the
    pieces of all tokens that end an answer. `single` tells of some strings whether each is one
    token where special tokens are understood, as a chat template's marks should be.

    `listed` are those of these strings that the vocabulary has an entry for, one token or not;
    `barred` tells whether it has special tokens that are written `<|…|>`. `answer_end` is None
    where no text was given to look at. `pre_known`: the file says how text is cut before it is
    looked up, in words that this engine knows.
    """

    vocabulary: int
    bos: str | None
    eos: str | None
    add_bos: bool
    ends: tuple[str, ...]
    round_trips: tuple[RoundTrip, ...]
    single: Mapping[str, bool]
    listed: frozenset[str] = frozenset()
    barred: bool = False
    answer_end: AnswerEnd | None = None
    pre_known: bool = True
