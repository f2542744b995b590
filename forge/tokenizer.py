"""Train the byte-level BPE tokenizer on the corpus: `python -m forge.tokenizer`.

The pre-tokenizer is llama.cpp's "qwen35" regex, so that the engine splits text the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from forge.data import DOMAINS, SHARES, documents

WORK = Path(__file__).parent / "work"
PATH = WORK / "tokenizer.json"
VOCAB = 2048
PRE = "qwen35"
PATTERN = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
    r"|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>",
          "</tool_response>")  # fmt: skip
END_OF_TEXT, IM_START, IM_END = range(3)


def corpus(characters: int) -> Iterator[str]:
    for domain in DOMAINS:
        budget = int(characters * SHARES[domain])
        for text in documents(domain, "train", seed=-1):
            yield text
            budget -= len(text)
            if budget <= 0:
                break


def train(path: Path = PATH) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(t, special=t in CONTROL, normalized=False)
                        for t in itertools.chain(CONTROL, MARKUP)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(6_000_000), trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def load(path: Path = PATH) -> Tokenizer:
    return Tokenizer.from_file(str(path)) if path.exists() else train(path)


if __name__ == "__main__":
    made = train()
    print(f"{made.get_vocab_size()} tokens -> {PATH}")
