"""Asks the engine about a model's vocabulary, in a child process that loads nothing else of it.

Takes two seconds at most, whatever the size of the model: only the header is read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from moestro.closing import Closing
from moestro.engine.child import (
    child_command,
    child_environment,
)
from moestro.engine.llama_cpp.refusal import UNAVAILABLE, answered, end_of, refusal, send
from moestro.engine.tokenizer import AnswerEnd, RoundTrip, TemplateVerdict, TokenizerReport
from moestro.errors import EngineError, EngineStartFailed, ModelUnsupported
from moestro.model import ModelSpec

TIMEOUT_SECONDS = 60.0

JUDGE_SECONDS = 4.0
"""The engine tries a published template within a quarter of a second."""

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")
_NO_MEMORY = "std::bad_alloc"

TEXTS = {
    "plain text": "The quick brown fox jumps over the lazy dog.",
    "numbers": "In 1987 it cost 3.14159, 1,000,000 or 0x7F; 50 % of 12-34.",
    "code": 'def f(x):\n    if x:\n        return {"a": [1, 2]}  # ok\n\treturn None\n',
    "blanks": "a  b   c\n\n\nd\n    e ",
    "a leading blank": " begins with a blank",
    "accents": "Crème brûlée, naïve façade, Ångström, Žižek, l’été",
    "Greek and Cyrillic": "Καλημέρα κόσμε. Доброе утро, мир!",
    "Chinese, Japanese and Korean": "你好，世界。こんにちは、世界。안녕하세요 세계.",
    "Arabic, Hebrew and Hindi": "مرحبا بالعالم שלום עולם नमस्ते दुनिया",
    "emoji": "😀 👩‍💻 🇮🇸 ✅",
    "symbols": "∑ ∞ ≤ € → „quoted“ — dash",
}
"""By what they try. Written out composed (NFC), so that normalising them changes nothing but what a
tokenizer folds."""

_NO_GPU = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HIP_VISIBLE_DEVICES": "-1",
    "GGML_VK_VISIBLE_DEVICES": "",
}
"""To open a GPU takes longer than everything else here."""


class TokenizerProbe(Closing):
    """A vocabulary that is loaded, and answers one question after the other.

    Its child dies with the thread that entered it, and with this process. Any thread may `kill` it.

    Raises:
        ModelUnsupported: not a GGUF of this machine.
        EngineError: the engine refuses the file, crashes on it, or takes too long.
    """

    def __init__(self, spec: ModelSpec, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        location = spec.files[0].location
        if spec.format != "gguf" or "://" in location:
            raise ModelUnsupported(
                "The engine reads the vocabulary of GGUF files on this machine only.",
                hint="Convert it to GGUF, or download it first.",
            )
        self._path = Path(location)
        self._timeout_seconds = timeout_seconds
        self._timed_out = threading.Event()
        self._killed = False
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
        self._things.close()

    def report(self, marks: Sequence[str] = (), after_answer: str | None = None) -> TokenizerReport:
        """`marks` should be one token each; `after_answer` is what follows an answer in a text.

        Raises:
            EngineError: it crashed, or takes too long.
        """
        facts = self._facts
        looked = self._ask({"marks": list(marks), "after_answer": after_answer})
        end = looked["answer_end"]
        return TokenizerReport(
            vocabulary=facts["vocabulary"],
            bos=self.bos,
            eos=self.eos,
            add_bos=facts["add_bos"],
            ends=tuple(facts["ends"]),
            round_trips=tuple(
                RoundTrip(text, tokens, _without_added_blank(text, came_back), kind)
                for (kind, text), (tokens, came_back) in zip(
                    TEXTS.items(), facts["round_trips"], strict=True
                )
            ),
            single=looked["single"],
            listed=frozenset(looked["listed"]),
            barred=looked["barred"],
            answer_end=None if end is None else AnswerEnd(**end),
            pre_known=not any("missing pre-tokenizer type" in line for line in end_of(self._log)),
        )

    def judge(
        self, template: str, *, timeout_seconds: float = JUDGE_SECONDS
    ) -> TemplateVerdict | None:
        """What the engine's own parser makes of a chat template, as when it starts. None where it
        cannot be asked, or was ended from outside. Best the last question: a template that crashes
        it or does not end takes the child along."""
        assert self._process is not None
        process, endless = self._process, threading.Event()

        def stop() -> None:
            endless.set()
            process.kill()

        clock = threading.Timer(timeout_seconds, stop)
        clock.start()
        try:
            accepted: bool | None = self._ask({"template": template})["accepts"]
        except EngineError:
            if endless.is_set():
                return "endless"
            status = process.wait()
            crashed = status < 0 and signal.Signals(-status).name in _CRASHES
            return "crashed" if crashed else None
        finally:
            clock.cancel()
        if accepted is False and any(_NO_MEMORY in line for line in end_of(self._log)[-4:]):
            return "endless"
        return None if accepted is None else "accepted" if accepted else "refused"

    def kill(self) -> None:
        """Ends the child at once. Whoever waits for an answer gets an EngineError. From any thread,
        before it was entered too; may be called again."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        try:
            self._log = self._things.enter_context(
                tempfile.TemporaryFile(prefix="moestro-")  # noqa: SIM115 - closed by the stack
            )
            lifeline, owners_end = os.pipe()
            self._things.callback(os.close, owners_end)
            self._things.callback(os.close, lifeline)
            self._process = subprocess.Popen(
                child_command("llama_cpp.tokenizer_probe_child", str(lifeline)),
                pass_fds=(lifeline,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**child_environment(os.environ), **_NO_GPU},
            )
        except OSError as error:
            raise EngineStartFailed(
                f"The vocabulary of {self._path.name} could not be looked at: {error.strerror}.",
                hint="It takes a process, and a little room in the folder for temporary files.",
                code=UNAVAILABLE,
            ) from error
        self._things.callback(self._end, self._process)
        if self._killed:
            self._process.kill()
        clock = threading.Timer(self._timeout_seconds, self._stop)
        clock.start()
        self._things.callback(clock.cancel)
        self._facts = self._ask({"model": str(self._path), "texts": list(TEXTS.values())})
        self.bos: str | None = self._facts["bos"]
        self.eos: str | None = self._facts["eos"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        send(process, question)
        return answered(process, process.stdout.readline(), self._refusal)

    def _refusal(self, exit_code: int) -> EngineError:
        if self._timed_out.is_set():
            return EngineStartFailed(
                f"The engine was still busy with the vocabulary of {self._path.name} after "
                f"{self._timeout_seconds:g} s.",
                hint="The machine may be overloaded, or the model's header absurd.",
                code=UNAVAILABLE,
            )
        return refusal(end_of(self._log), exit_code, self._path.name)

    def _stop(self) -> None:
        self._timed_out.set()
        if self._process is not None:
            self._process.kill()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()  # it holds nothing that would have to be saved
        process.communicate()


def probe_tokenizer(
    spec: ModelSpec, marks: Sequence[str] = (), after_answer: str | None = None
) -> TokenizerReport:
    """One report of a `TokenizerProbe`.

    Raises:
        ModelUnsupported, EngineError: see `TokenizerProbe`.
    """
    with TokenizerProbe(spec) as probe:
        return probe.report(marks, after_answer)


def _without_added_blank(text: str, came_back: str) -> str:
    """SentencePiece puts a blank before everything, and whoever prints an answer takes it away."""
    return text if came_back == " " + text else came_back
