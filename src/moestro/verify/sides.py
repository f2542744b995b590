"""The two sides of a comparison: a candidate that runs, and a reference that runs or is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestro.engine.llama_cpp.capture import Capture, Captured, Vocabulary
from moestro.model import ModelSpec
from moestro.routing.sample import LayerSample, sample
from moestro.verify.corpus import CHUNK_TOKENS, Chunk, Passage, cut
from moestro.verify.divergence import TokenDivergence, compare_logits
from moestro.verify.subject import Options

FIRST_SCORED = CHUNK_TOKENS // 2
"""Positions before it have little to go by; the convention of llama.cpp's `llama-perplexity`."""

PROMPT_TOKENS = 32
STREAMS = 4
"""Generations side by side. More is no faster where weights are read anew for each expert, and each
takes a cache or a state of its own."""

Compare = Callable[[NDArray[np.float32]], TokenDivergence]


@dataclass(frozen=True, slots=True)
class Pass:
    """The reference's results for one chunk. `compare` takes the candidate's logits [scored rows,
    vocabulary]; it must be called before the next pass is asked for."""

    chunk: Chunk
    compare: Compare
    routers: Mapping[int, LayerSample]


@dataclass(frozen=True, slots=True)
class RoutedExperts:
    """Of the layers with routed experts; `gating` as in `model.Experts`."""

    count: int
    used: int
    gating: str

    @staticmethod
    def of(model: ModelSpec) -> RoutedExperts | None:
        found = model.experts
        return RoutedExperts(found.count, found.used, found.gating) if found else None


class ReferenceSide(Protocol):
    """What `run` needs of a reference, whether it runs or was stored."""

    vocabulary: Vocabulary
    experts: RoutedExperts | None
    prompts: list[list[int]]
    generated_tokens: int

    @property
    def chunks(self) -> int: ...

    def passes(self) -> Iterator[Pass]: ...

    def generations(self) -> list[list[int]]: ...


def fed(chunk: Chunk, vocabulary: Vocabulary) -> list[int]:
    """The tokens as a model is given them: the first one makes way for the token that begins a
    text, where the vocabulary wants one (as in `llama-perplexity`)."""
    tokens = [int(token) for token in chunk.tokens]
    if vocabulary.add_bos and vocabulary.bos is not None:
        tokens[0] = vocabulary.bos
    return tokens


def scored_targets(chunk: Chunk) -> NDArray[np.int32]:
    """The token that follows each scored position; the last position has none."""
    return np.asarray(chunk.tokens[FIRST_SCORED + 1 :], dtype=np.int32)


def scored_logits(captured: Captured) -> NDArray[np.float32]:
    return captured.logits[:-1]


def sampled(captured: Captured) -> dict[int, LayerSample]:
    return {
        block: sample(router.logits, router.chosen, router.weights)
        for block, router in captured.routers.items()
    }


def chunks_of(capture: Capture, passages: Sequence[Passage], options: Options) -> list[Chunk]:
    """The text in the model's own tokens, domains taking turns: whoever stops early has seen some
    of each.

    Raises:
        UsageError: the text is shorter than one chunk.
    """
    tokenized = [(passage.domain, capture.tokenize(passage.text)) for passage in passages]
    chunks = cut(tokenized, most_tokens=options.tokens)
    seen: Counter[str] = Counter()
    turns = []
    for chunk in chunks:
        turns.append((seen[chunk.domain], chunk.index, chunk))
        seen[chunk.domain] += 1
    return [chunk for _, _, chunk in sorted(turns, key=lambda turn: turn[:2])]


def prompts_of(chunks: Sequence[Chunk], most: int, vocabulary: Vocabulary) -> list[list[int]]:
    """Pieces of text to be continued, taken evenly: of a chunk first its beginning, then, where
    there are fewer chunks than wanted, what lies further on."""
    each = -(-most // len(chunks)) if chunks else 0
    places = [(chunk, turn) for turn in range(each) for chunk in chunks]
    if each == 1:
        places = [places[number * len(chunks) // most] for number in range(most)]
    step = max(1, (CHUNK_TOKENS - PROMPT_TOKENS) // max(each, 1))
    prompts = []
    for chunk, turn in places[:most]:
        tokens = fed(chunk, vocabulary)
        begin = turn * step
        piece = tokens[begin : begin + PROMPT_TOKENS]
        prompts.append([tokens[0], *piece[1:]] if vocabulary.add_bos else piece)
    return prompts


def generate(capture: Capture, prompts: Sequence[list[int]], most_tokens: int) -> list[list[int]]:
    made: list[list[int]] = []
    for begin in range(0, len(prompts), STREAMS):
        made += capture.generate(prompts[begin : begin + STREAMS], most_tokens)
    return made


class LiveReference:
    """A reference that is loaded beside the candidate; every comparison is exact."""

    def __init__(
        self,
        capture: Capture,
        chunks: Sequence[Chunk],
        experts: RoutedExperts | None,
        *,
        prompts: int,
        generated_tokens: int,
    ) -> None:
        self._capture = capture
        self._chunks = chunks
        self.generated_tokens = generated_tokens
        self.experts = experts
        self.vocabulary = capture.vocabulary
        self.prompts = prompts_of(chunks, prompts, capture.vocabulary)

    @property
    def chunks(self) -> int:
        return len(self._chunks)

    def passes(self) -> Iterator[Pass]:
        for chunk in self._chunks:
            captured = self._capture.chunk(fed(chunk, self.vocabulary), FIRST_SCORED)
            yield Pass(chunk, _exactly(captured, scored_targets(chunk)), sampled(captured))

    def differing(self, candidate: Capture, passages: Sequence[Passage]) -> list[str]:
        """The domains whose text the candidate cuts into other tokens."""
        found = [
            passage.domain
            for passage in passages
            if self._capture.tokenize(passage.text) != candidate.tokenize(passage.text)
        ]
        return list(dict.fromkeys(found))

    def generations(self) -> list[list[int]]:
        return generate(self._capture, self.prompts, self.generated_tokens)


def _exactly(captured: Captured, targets: NDArray[np.int32]) -> Compare:
    return lambda candidate: compare_logits(scored_logits(captured), candidate, targets)
