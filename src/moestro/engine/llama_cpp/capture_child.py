"""Child process of `capture`: runs one model over token lists and shows what it computed.

Usage: python -m moestro.engine.llama_cpp.capture_child, with JSON lines on stdin. The first names
the model and the memory that both sides see, each other line is one thing to do; each is answered
by one report. Large results lie in that memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.arena import ArenaWriter
from moestro.engine.llama_cpp.binding import (
    FLASH_ATTENTION,
    Batch,
    ContextParams,
    EvalCallback,
)
from moestro.engine.llama_cpp.placement import place
from moestro.engine.llama_cpp.router_watch import RouterWatch
from moestro.errors import EngineMismatch

_INT32_POINTER = ctypes.POINTER(ctypes.c_int32)
_INT8_POINTER = ctypes.POINTER(ctypes.c_int8)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines of stdin. Its end is the owner's end, and then this process ends too, whatever it does:
    ctypes lets other threads run while the engine computes."""

    waiting: queue.SimpleQueue[bytes]

    @staticmethod
    def begin() -> _Lines:
        lines = _Lines(queue.SimpleQueue())
        threading.Thread(target=lines._read, daemon=True).start()
        return lines

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            self.waiting.put(line)
        os._exit(0)

    def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.waiting.get())
        return message


class _Runner:
    def __init__(self, library: ctypes.CDLL, start: dict[str, Any]) -> None:
        self.library = library
        self.asked = start
        self.arena = ArenaWriter(start["arena"])
        self.watch = RouterWatch(library) if start["routing"] else None
        self.model: int = 0
        self.context: int | None = None
        self._context_for: tuple[int, int, int, bool] | None = None
        self._keep: list[Any] = []

    def load(self) -> bool:
        library, asked = self.library, self.asked
        params = library.llama_model_default_params()
        self._keep = place(
            library,
            params,
            gpu_layers=asked["gpu_layers"],
            tensor_split=asked["tensor_split"],
            host_tensors=asked["host_tensors"],
        )
        self.model = library.llama_model_load_from_file(os.fsencode(asked["model"]), params) or 0
        if not self.model:
            return False
        self.vocabulary = library.llama_model_get_vocab(self.model)
        self.tokens = library.llama_vocab_n_tokens(self.vocabulary)
        return True

    def facts(self) -> dict[str, Any]:
        library = self.library
        return {
            "vocabulary": self.tokens,
            "bos": library.llama_vocab_bos(self.vocabulary),
            "add_bos": library.llama_vocab_get_add_bos(self.vocabulary),
            "arena_bytes": self.arena.size_bytes,
        }

    def tokenize(self, text: bytes) -> list[int]:
        """Without special tokens; `text` is plain text, whatever it looks like."""
        most = len(text) + 8
        found = (ctypes.c_int32 * most)()
        count = self.library.llama_tokenize(
            self.vocabulary, text, len(text), found, most, False, False
        )
        return list(found[: max(count, 0)])

    def chunk(self, tokens: list[int], first: int) -> dict[str, Any] | None:
        """Logits of the positions from `first` on, and what the routers did on all of them."""
        outputs = len(tokens) - first
        context = self._have_context(len(tokens), 1, outputs, self.watch)
        if context is None:
            return None
        library = self.library
        library.llama_memory_clear(library.llama_get_memory(context), True)
        flags = np.zeros(len(tokens), dtype=np.int8)
        flags[first:] = 1
        if not self._decode(context, np.asarray(tokens, dtype=np.int32), flags):
            return None
        library.llama_synchronize(context)
        logits = np.ctypeslib.as_array(library.llama_get_logits(context), (outputs, self.tokens))
        routers = self.watch.take(len(tokens)) if self.watch is not None else {}
        self.arena.clear()
        self.arena.reserve(
            logits.nbytes
            + sum(
                part.nbytes + 64
                for router in routers.values()
                for part in (router.logits, router.chosen, router.weights)
            )
        )
        return {
            "logits": self.arena.add(logits),
            "rows": outputs,
            "routers": [
                {
                    "block": block,
                    "tokens": len(router.chosen),
                    "experts": router.logits.shape[1],
                    "used": router.chosen.shape[1],
                    "logits": self.arena.add(router.logits),
                    "chosen": self.arena.add(router.chosen),
                    "weights": self.arena.add(router.weights),
                }
                for block, router in routers.items()
            ],
            "arena_bytes": self.arena.size_bytes,
        }

    def generate(self, prompts: list[list[int]], most: int) -> list[list[int]] | None:
        """The most likely token, `most` times for each prompt, all of them side by side; a prompt
        ends early at a token that ends generation."""
        streams, longest = len(prompts), max(len(prompt) for prompt in prompts)
        context = self._have_context(longest + most, streams, streams, None)
        if context is None:
            return None
        library = self.library
        library.llama_memory_clear(library.llama_get_memory(context), True)
        made: list[list[int]] = [[] for _ in prompts]
        last: dict[int, int] = {}
        for stream, prompt in enumerate(prompts):
            flags = np.zeros(len(prompt), dtype=np.int8)
            flags[-1] = 1
            if not self._decode(
                context,
                np.asarray(prompt, dtype=np.int32),
                flags,
                np.full(len(prompt), stream, dtype=np.int32),
                np.arange(len(prompt), dtype=np.int32),
            ):
                return None
            last[stream] = self._most_likely(context, len(prompt) - 1)
        for step in range(most):
            for stream, token in list(last.items()):
                if library.llama_vocab_is_eog(self.vocabulary, token):
                    del last[stream]
                else:
                    made[stream].append(token)
            if not last or step == most - 1:
                break
            running = list(last)
            if not self._decode(
                context,
                np.asarray([last[stream] for stream in running], dtype=np.int32),
                np.ones(len(running), dtype=np.int8),
                np.asarray(running, dtype=np.int32),
                np.asarray(
                    [len(prompts[stream]) + len(made[stream]) - 1 for stream in running],
                    dtype=np.int32,
                ),
            ):
                return None
            last = {s: self._most_likely(context, row) for row, s in enumerate(running)}
        return made

    def _most_likely(self, context: int, row: int) -> int:
        logits = self.library.llama_get_logits_ith(context, row)
        return int(np.argmax(np.nan_to_num(np.ctypeslib.as_array(logits, (self.tokens,)))))

    def _have_context(
        self, length: int, streams: int, outputs: int, watch: RouterWatch | None
    ) -> int | None:
        key = (length, streams, outputs, watch is not None)
        if self.context and self._context_for == key:
            return self.context
        if self.context:
            self.library.llama_free(self.context)
        params: ContextParams = self.library.llama_context_default_params()
        params.n_ctx = length * streams
        params.n_batch = max(length, streams)
        params.n_ubatch = min(self.asked["ubatch"], params.n_batch)
        params.n_seq_max = streams
        params.n_outputs_max = params.n_outputs_max_per_seq = max(outputs, streams)
        params.n_threads = params.n_threads_batch = self.asked["threads"]
        params.type_k, params.type_v = self.asked["type_k"], self.asked["type_v"]
        params.flash_attn_type = FLASH_ATTENTION[self.asked["flash_attention"]]
        params.offload_kqv = not self.asked["cache_on_host"]
        params.swa_full = False
        params.cb_eval = EvalCallback() if watch is None else watch.callback
        self.context = self.library.llama_init_from_model(self.model, params)
        self._context_for = key
        return self.context

    def _decode(
        self,
        context: int,
        tokens: NDArray[np.int32],
        outputs: NDArray[np.int8],
        streams: NDArray[np.int32] | None = None,
        positions: NDArray[np.int32] | None = None,
    ) -> bool:
        batch = Batch()
        batch.n_tokens = len(tokens)
        batch.token = tokens.ctypes.data_as(_INT32_POINTER)
        batch.logits = outputs.ctypes.data_as(_INT8_POINTER)
        if streams is not None and positions is not None:
            counts = np.ones(len(tokens), dtype=np.int32)
            base = streams.ctypes.data
            each = (_INT32_POINTER * len(tokens))(
                *(ctypes.cast(base + 4 * index, _INT32_POINTER) for index in range(len(tokens)))
            )
            batch.pos = positions.ctypes.data_as(_INT32_POINTER)
            batch.n_seq_id = counts.ctypes.data_as(_INT32_POINTER)
            batch.seq_id = ctypes.cast(each, ctypes.POINTER(_INT32_POINTER))
        return bool(self.library.llama_decode(context, batch) == 0)


def main() -> int:
    report = claim_report_stream()
    lines = _Lines.begin()
    try:
        library = open_library()
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START
    library.llama_backend_init()
    runner = _Runner(library, lines.next())
    if not runner.load():
        report.send("refused")
        return FAILED_START
    report.send("loaded", **runner.facts())
    while True:
        _answer(runner, lines.next(), report)


def _answer(runner: _Runner, message: dict[str, Any], report: ReportStream) -> None:
    match message:
        case {"tokenize": text}:
            report.send("tokens", tokens=runner.tokenize(text.encode(errors="replace")))
        case {"chunk": tokens, "first": first}:
            done = runner.chunk(tokens, first)
            report.send("refused") if done is None else report.send("chunk", **done)
        case {"generate": prompts, "most": most}:
            made = runner.generate(prompts, most)
            report.send("refused") if made is None else report.send("generated", streams=made)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
