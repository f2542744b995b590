"""Every error that moestro raises on purpose.

    MoestroError                 something a person can act on; exit status 1
    ├── UsageError               the command line or a request is contradictory; exit status 2
    ├── NotAPlan                 a file that is not a plan, or one of another version
    ├── HardwareError            facts about a machine that cannot be true, or cannot be kept
    ├── ModelError               the model file
    │   ├── ModelNotFound        no such path, address or repository
    │   ├── NotAModel            another kind of file
    │   ├── ModelTruncated       shorter than its own header says
    │   ├── ModelPartMissing     a split model lacks a part
    │   ├── ModelCorrupt         a header that contradicts itself or claims absurd sizes
    │   └── ModelUnsupported     a sound file of a kind that nothing here can run
    ├── DownloadError            network, hub, disk full, hash mismatch
    ├── EngineError              the inference engine
    │   ├── EngineMismatch       another engine build than the one this version was made for
    │   └── EngineStartFailed    it ended, or stayed silent, before it was ready
    │       └── EngineOutOfMemory  with settings that need less it may start
    └── GatewayError             the endpoint
        └── PortTaken            another program listens there

An error has a `code` (stable, kebab-case, for programs), a sentence (for people) and mostly a
`hint` (what to do next). Foreign exceptions are translated where they enter, with `raise … from`.
"""

from __future__ import annotations

from moestro.words import plain


class MoestroError(Exception):
    """One sentence that says what is wrong, and a hint that says what to do.

    Names out of files stand in both, so what a terminal would obey is replaced.
    """

    code = "error"
    exit_status = 1

    def __init__(self, sentence: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = plain(sentence)
        self.hint = None if hint is None else plain(hint)
        if code is not None:
            self.code = code

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "message": self.sentence, "hint": self.hint}


class UsageError(MoestroError):
    code = "usage"
    exit_status = 2


class NoHome(MoestroError, RuntimeError):
    """This user has no home folder, as in containers. Python's own word for it is a RuntimeError,
    and those who can do without look for that."""

    code = "no-home"

    def __init__(self, variable: str) -> None:
        super().__init__(
            "This user has no home folder.", hint=f"Name a folder in {variable}, or set HOME."
        )


class NotAPlan(MoestroError):
    code = "not-a-plan"


class HardwareError(MoestroError):
    code = "hardware-error"


class ModelError(MoestroError):
    code = "model-error"


class ModelNotFound(ModelError):
    code = "model-not-found"


class NotAModel(ModelError):
    code = "not-a-model"


class ModelTruncated(ModelError):
    code = "model-truncated"


class ModelPartMissing(ModelError):
    code = "model-part-missing"


class ModelCorrupt(ModelError):
    code = "model-corrupt"


class ModelUnsupported(ModelError):
    code = "model-unsupported"


class DownloadError(MoestroError):
    code = "download-failed"


class EngineError(MoestroError):
    code = "engine-error"


class EngineMismatch(EngineError):
    code = "engine-mismatch"


class EngineStartFailed(EngineError):
    """`log_tail` holds the engine's last lines where they tell more than the sentence does."""

    code = "engine-start-failed"

    def __init__(
        self,
        sentence: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(sentence, hint=hint, code=code)
        self.log_tail = log_tail

    def to_json(self) -> dict[str, object]:
        log = {"log_tail": list(self.log_tail)} if self.log_tail else {}
        return {**super().to_json(), **log}


class EngineOutOfMemory(EngineStartFailed):
    code = "engine-out-of-memory"


class GatewayError(MoestroError):
    code = "gateway-error"


class PortTaken(GatewayError):
    code = "port-taken"
