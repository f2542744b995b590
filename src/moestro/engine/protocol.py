"""What the gateway may ask of any engine, whichever program runs the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the set-up imports this room before anything is installed
    from moestro.planning import Settings


class EngineState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # answers what it has, and gets no more
    SLEEPING = "sleeping"  # unloaded for want of work; the next request brings another one
    STOPPED = "stopped"  # ended because it was asked to
    FAILED = "failed"  # ended, or never became ready, by itself


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What to run: `model` is the first part of a split file; `name` is what clients call it.

    `synthetic_acceptance` has the engine accept drafted tokens by chance: one probability for each
    position of a draft, that it and all before it are accepted; those beyond the drafting depth
    do not count. The text is nonsense then: for benchmarks of models whose weights are random.
    `verbose`: the log says more of each request, as how often the drafts of each position were
    accepted; no text of it. `embeddings`: it gives embeddings too, of the last token where the file
    names no pooling. `thinking` switches reasoning on or off where a request does not; None leaves
    it to the model's template.
    """

    model: Path
    name: str
    settings: Settings
    projector: Path | None = None
    synthetic_acceptance: tuple[float, ...] = ()
    verbose: bool = False
    embeddings: bool = False
    thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class EngineExit:
    """How an engine ended. `sentence` is for people; `log_tail` holds its last lines."""

    sentence: str
    exit_code: int | None
    signal: str | None
    log_tail: tuple[str, ...] = ()
    out_of_memory: bool = False
    """Whether the kernel ended it for want of memory."""


class Engine(Protocol):
    """One model in one child process, reached over loopback HTTP.

    The life of an engine is a line: starting → ready → (stopped | failed). A new start is a new
    object, so a stale reference can never reach another process.
    """

    @property
    def state(self) -> EngineState: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`, once ready."""

    @property
    def api_key(self) -> str:
        """The secret that only this engine's owner knows."""

    @property
    def stream_context(self) -> int | None:
        """Tokens that one stream can really reach, as the ready engine says; None if it does not.

        At least what was asked for, unless the engine never goes beyond the length that the model
        was trained for.
        """

    @property
    def takes(self) -> tuple[str, ...]:
        """What may be sent to it, as the ready engine says: "text", and "image", "audio" or "video"
        where its model has eyes or ears."""

    @property
    def started_seconds(self) -> float | None:
        """Seconds from the start of the process until it was ready."""

    async def start(self, timeout_seconds: float | None = None) -> None:
        """Returns when the engine answers requests.

        Raises:
            EngineStartFailed: it ended first, or was not ready in time (then it was killed).
        """

    async def wait(self) -> EngineExit:
        """Waits until the engine has ended, however it ended. May be awaited by several tasks."""

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Ends the engine and its process, politely first. Does nothing if it has ended."""

    def log_tail(self, lines: int = 50) -> tuple[str, ...]: ...
