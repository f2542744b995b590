"""Documents to fixed-length token sequences, with a position that can be saved and restored."""

from __future__ import annotations

import random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from forge.data import DOMAINS, SHARES
from forge.tokenizer import END_OF_TEXT, IM_END, IM_START

POOL = 64
READ_WEIGHT = 0.2  # of tokens that the model only reads: user and system turns, headers


class Packer:
    """Fills sequences with whole documents where they fit; each sequence begins with a document.

    The next document comes from the domain furthest behind its share of tokens.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.random = random.Random(seed)
        self.pool: list[list[int]] = []
        self.made = dict.fromkeys(DOMAINS, 0)
        self.balance = dict.fromkeys(DOMAINS, 0)  # made since the shares were last changed
        self.assistant = tokenizer.encode("assistant").ids[0]

    def document(self) -> list[int]:
        domain = min(DOMAINS, key=lambda d: self.balance[d] / SHARES[d])
        text = DOMAINS[domain](self.random)
        ids = [*self.tokenizer.encode(text).ids, END_OF_TEXT]
        self.made[domain] += len(ids)
        self.balance[domain] += len(ids)
        return ids

    def sequence(self, length: int) -> tuple[list[int], int]:
        """Token ids and how many of them are text; the rest is padding."""
        ids: list[int] = []
        while len(ids) < length:
            while len(self.pool) < POOL:
                self.pool.append(self.document())
            room = length - len(ids)
            fits = [i for i, d in enumerate(self.pool) if len(d) <= room]
            if not ids:
                pick = 0
            elif fits:
                # the longest that fits closes gaps; the oldest keeps the mix honest
                pick = max(fits, key=lambda i: len(self.pool[i])) if room < 160 else fits[0]
            elif room < 24:
                break
            else:
                pick = 0
            ids += self.pool.pop(pick)[:room]
        return ids + [END_OF_TEXT] * (length - len(ids)), len(ids)

    def weights(self, ids: list[int]) -> list[float]:
        """How much predicting each token counts: what the assistant says and plain text fully."""
        result: list[float] = []
        weight, header = 1.0, 0
        for i, token in enumerate(ids):
            if token == IM_START:
                spoken = i + 1 < len(ids) and ids[i + 1] == self.assistant
                weight, header = (1.0 if spoken else READ_WEIGHT), 3  # marker, role, line end
            result.append(READ_WEIGHT if header else weight)
            header = max(header - 1, 0)
            if token in (END_OF_TEXT, IM_END):
                weight = 1.0 if token == END_OF_TEXT else READ_WEIGHT
        return result

    def batch(self, rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and their weights, [rows, tokens]; padding weighs nothing."""
        inputs = torch.empty(rows, tokens, dtype=torch.long)
        targets = torch.empty(rows, tokens, dtype=torch.long)
        weights = torch.zeros(rows, tokens)
        for row in range(rows):
            ids, used = self.sequence(tokens + 1)
            full = torch.tensor(ids)
            inputs[row], targets[row] = full[:-1], full[1:]
            weights[row, : used - 1] = torch.tensor(self.weights(ids)[1:used])
        return inputs, targets, weights

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.random.getstate(), "pool": self.pool, "made": self.made,
            "balance": self.balance, "shares": SHARES,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.setstate(state["random"])
        self.pool = [list(d) for d in state["pool"]]
        self.made.update(state["made"])
        if state.get("shares") == SHARES:
            self.balance = dict(state["balance"])
