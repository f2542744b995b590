"""What the routers of a running model decide, seen through the engine's eval callback.

The engine asks before each node of its graph whether somebody wants to see its result, and shows it
when it is computed. Every mixture-of-experts model builds its routing with the same few nodes
(`build_moe_ffn` in llama.cpp's `llama-graph.cpp`), named after what they are and their block.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestro.engine.llama_cpp.binding import EvalCallback
from moestro.engine.llama_cpp.tensor_reading import declare, read_rows

_LOGITS = (b"ffn_moe_logits", b"ffn_moe_logits_biased")
_CHOSEN = b"ffn_moe_topk"
_WEIGHTS = (
    b"ffn_moe_weights",
    b"ffn_moe_weights_softmax",
    b"ffn_moe_weights_norm",
    b"ffn_moe_weights_scaled",
)
"""In the order of the graph: the last one of a block is what the engine goes on with."""


@dataclass(frozen=True, slots=True)
class SeenRouter:
    """One block over the tokens of a batch: `logits` [tokens, experts], `chosen` and `weights`
    [tokens, used]. The last block may have computed output tokens only."""

    logits: NDArray[np.float32]
    chosen: NDArray[np.int32]
    weights: NDArray[np.float32]


class RouterWatch:
    """`callback` belongs into the context's parameters; `take` gives what was seen since."""

    def __init__(self, library: ctypes.CDLL) -> None:
        declare(library)
        self._library = library
        self._seen: defaultdict[int, defaultdict[bytes, list[NDArray[np.generic]]]]
        self._seen = defaultdict(lambda: defaultdict(list))
        self._wanted: dict[int, set[bytes]] | None = None
        self.failure: BaseException | None = None
        self.callback = EvalCallback(self._node)

    def take(self, tokens: int) -> dict[int, SeenRouter]:
        """Blocks in their order, after a batch of `tokens`; what they showed is forgotten here.

        A block that showed more than one choice for a token routes twice (grovemoe), which the
        names do not tell apart: it is left out.
        """
        if self.failure is not None:
            raise self.failure
        seen = {block: self._router(found) for block, found in sorted(self._seen.items())}
        if self._wanted is None and self._seen:
            # The graph stays the same, and each node that is looked at costs a stop: from now on
            # only the last stage of logits and of weights.
            self._wanted = {
                block: {_last(_LOGITS, found), _CHOSEN, _last(_WEIGHTS, found)}
                for block, found in self._seen.items()
            }
        self._seen.clear()
        return {
            block: router
            for block, router in seen.items()
            if router is not None
            and len(router.chosen) == len(router.logits) == len(router.weights) <= tokens
        }

    def _node(self, tensor: int, asking: bool, _data: object) -> bool:
        name: bytes = self._library.ggml_get_name(tensor)
        if not name.startswith(b"ffn_moe_"):
            return not asking
        kind, _, number = name.partition(b"-")
        if not number.isdigit() or not (kind == _CHOSEN or kind in _LOGITS or kind in _WEIGHTS):
            return not asking
        block = int(number)
        if asking:
            return self._wanted is None or kind in self._wanted.get(block, ())
        try:
            self._keep(block, kind, tensor)
        except Exception as error:  # noqa: BLE001 - told by `take`; it cannot pass through C
            self.failure = error
            return False
        return True

    def _keep(self, block: int, kind: bytes, tensor: int) -> None:
        found = self._seen[block]
        if kind == _CHOSEN:
            found[kind].append(read_rows(self._library, tensor, np.int32, None))
        elif kind in _LOGITS:
            found[kind].append(read_rows(self._library, tensor, np.float32, None))
        else:
            chosen = found[_CHOSEN]
            used = chosen[-1].shape[1] if chosen else None
            found[kind].append(read_rows(self._library, tensor, np.float32, used))

    def _router(self, found: defaultdict[bytes, list[NDArray[np.generic]]]) -> SeenRouter | None:
        """None for a block whose routing has no such parts (experts chosen by a table)."""
        logits, weights = found.get(_last(_LOGITS, found)), found.get(_last(_WEIGHTS, found))
        chosen = found.get(_CHOSEN)
        if not logits or not chosen or not weights:
            return None
        return SeenRouter(
            np.concatenate(_filled(logits)).astype(np.float32, copy=False),
            np.concatenate(_filled(chosen)).astype(np.int32, copy=False),
            np.concatenate(_filled(weights)).astype(np.float32, copy=False),
        )


def _last(kinds: tuple[bytes, ...], found: defaultdict[bytes, list[NDArray[np.generic]]]) -> bytes:
    return next((kind for kind in reversed(kinds) if kind in found), kinds[0])


def _filled(parts: list[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Without the empty parts, whose row length is not known; one of them if all are empty."""
    return [part for part in parts if len(part)] or parts[:1]
