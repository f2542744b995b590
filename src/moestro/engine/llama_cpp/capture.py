"""Runs one model over text, in a child process, and shows logits and routing of every chunk.

A failed check of the engine ends the child, never the caller.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moestro.closing import Closing
from moestro.engine.child import (
    child_command,
    child_environment,
)
from moestro.engine.llama_cpp import derived
from moestro.engine.llama_cpp.arena import ArenaReader, make_file
from moestro.engine.llama_cpp.ggml import TYPE_NUMBERS
from moestro.engine.llama_cpp.refusal import UNAVAILABLE, answered, end_of, refusal, send
from moestro.errors import EngineError, EngineStartFailed
from moestro.model import ModelSpec
from moestro.planning.placement import expert_blocks
from moestro.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class RouterCapture:
    """One block with routed experts over the tokens of a chunk.

    `logits` [tokens, experts]: the router's output, its bias added where it has one. `chosen`
    [tokens, used]: expert numbers as the engine selected them. `weights` [tokens, used]: what their
    outputs are multiplied with. The last block may cover only the tokens whose logits were asked
    for; they are the last ones of the chunk.
    """

    logits: NDArray[np.float32]
    chosen: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Captured:
    """`logits` [scored rows, vocabulary]; `routers` by block number, empty for a dense model.

    The arrays lie in memory that the next chunk overwrites: copy what is to stay.
    """

    logits: NDArray[np.float32]
    routers: Mapping[int, RouterCapture]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """As the engine sees it. `bos` begins a text where `add_bos`."""

    tokens: int
    bos: int | None
    add_bos: bool


class Capture(Closing):
    """A model that is loaded, and answers one question after the other.

    `settings` say where the model lies and on how many threads it computes; the cache's types and
    flash attention are taken from them too, as they shape the result. Context and streams are not:
    a context as long as a chunk is made.
    """

    def __init__(self, model: ModelSpec, settings: Settings, *, routing: bool = True) -> None:
        self._model = model
        self._settings = settings
        self._routing = routing and model.experts is not None
        self._path = Path(model.files[0].location)
        self._process: subprocess.Popen[bytes] | None = None
        self._things = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """May be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._things.close()

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a plain text, without any that mark its begin or end."""
        tokens: list[int] = self._ask({"tokenize": text})["tokens"]
        return tokens

    def chunk(self, tokens: Sequence[int], first: int) -> Captured:
        """One pass over `tokens`, from an empty cache; logits of the positions from `first` on.

        Raises:
            EngineError: the engine refuses or crashes; with the code `UNAVAILABLE` where that is
                not the model's fault.
        """
        report = self._ask({"chunk": [int(token) for token in tokens], "first": first})
        arena = self._arena
        arena.follow(report["arena_bytes"])
        return Captured(
            logits=arena.floats(report["logits"], report["rows"], self.vocabulary.tokens),
            routers={
                router["block"]: RouterCapture(
                    arena.floats(router["logits"], router["tokens"], router["experts"]),
                    arena.ints(router["chosen"], router["tokens"], router["used"]),
                    arena.floats(router["weights"], router["tokens"], router["used"]),
                )
                for router in report["routers"]
            },
        )

    def generate(self, prompts: Sequence[Sequence[int]], most_tokens: int) -> list[list[int]]:
        """Greedy continuations of `prompts`, side by side, without the prompts themselves.

        Raises:
            EngineError: the engine refuses or crashes.
        """
        lists = [[int(token) for token in prompt] for prompt in prompts]
        streams: list[list[int]] = self._ask({"generate": lists, "most": most_tokens})["streams"]
        return streams

    def _start(self) -> None:
        try:
            log = tempfile.TemporaryFile(prefix="moestro-")  # noqa: SIM115 - closed by the stack
            self._log = self._things.enter_context(log)
            self._arena_file = make_file()
            self._things.callback(os.close, self._arena_file)
            self._process = subprocess.Popen(
                child_command("llama_cpp.capture_child"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=child_environment(os.environ, beside_another=True),
                pass_fds=(self._arena_file,),
                start_new_session=True,  # Ctrl-C is for the owner, who then ends the child
            )
        except OSError as error:
            raise EngineStartFailed(
                f"The engine could not be started: {error.strerror}.",
                hint="It needs a process, and a few MB in the folder for temporary files.",
                code=UNAVAILABLE,
            ) from error
        self._arena = ArenaReader(self._arena_file)
        report = self._ask(self._request())
        bos = report["bos"]
        self.vocabulary = Vocabulary(
            report["vocabulary"], bos if bos >= 0 else None, report["add_bos"] and bos >= 0
        )

    def _request(self) -> dict[str, Any]:
        settings = self._settings
        blocks = expert_blocks(self._model)[: settings.cpu_expert_layers]
        return {
            "model": str(self._path),
            "arena": self._arena_file,
            "routing": self._routing,
            "gpu_layers": settings.gpu_layers,
            "tensor_split": settings.tensor_split,
            "host_tensors": derived.host_tensors(blocks),
            "threads": settings.threads,
            "ubatch": settings.ubatch,
            "type_k": TYPE_NUMBERS[settings.cache_type_k.upper()],
            "type_v": TYPE_NUMBERS[settings.cache_type_v.upper()],
            "flash_attention": settings.flash_attention,
            "cache_on_host": settings.cache_on_host,
        }

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        send(process, question)
        return answered(process, process.stdout.readline(), self._refusal)

    def _refusal(self, exit_code: int) -> EngineError:
        return refusal(end_of(self._log), exit_code, self._path.name)
