"""Renders a chat template in a process of its own, and says what came of it.

A template is a program out of a file: one that never ends, one that fills the memory and one that
tries to run something are as easy to write as a good one. So the process has little time and
memory, no file to write, and nothing of the environment that could be worth stealing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from moestro.doctor.template import conversations
from moestro.doctor.template.conversations import BEGUN, CLOSED, CONTINUED, TRIALS
from moestro.doctor.template.report import UNSAFE, Conversation, Outcome, Rendering, TemplateReport
from moestro.doctor.template.stopper import Stopper
from moestro.errors import MoestroError
from moestro.units import MIB

MARK = re.compile(
    r"<[|｜][^\s<>|｜]{1,48}[|｜]>|<(?:start|end)_of_\w{1,24}>|</?s>|\[/?[A-Z_]{2,24}\]"
)
"""What a template writes to be one token: `<|im_end|>`, `<end_of_turn>`, `</s>`, `[/INST]`."""

START_SECONDS = 20.0
"""Until the child has been loaded: from a slow disk, on a busy machine."""

_MOST_MARKS = 64
_MOST_AFTER_ANSWER = 256
_MOST_LOG_BYTES = 1 << 16
_MOST_OUTPUT_BYTES = 32 * MIB
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")


@dataclass(frozen=True, slots=True)
class Limits:
    """`cpu_seconds` and `memory_bytes` of the whole process, whose interpreter takes a fifth of a
    second and 100 MiB of addresses; `wall_seconds` once it is ready, for a machine that is busy
    otherwise. `text_characters` of one rendering: the longest published one writes 60,000."""

    cpu_seconds: int = 3
    memory_bytes: int = 512 * MIB
    wall_seconds: float = 10.0
    text_characters: int = 1 << 18


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Tried:
    outcome: Outcome
    text: str
    message: str
    changed_data: bool = False


@dataclass(frozen=True, slots=True)
class _Told:
    """What the child said before it ended. `ready`: it got as far as the template."""

    ready: bool
    tried: dict[str, _Tried]
    private: str | None = None
    unclear: str | None = None


def examine_template(
    template: str,
    *,
    bos: str | None = None,
    eos: str | None = None,
    limits: Limits = LIMITS,
    stopper: Stopper | None = None,
) -> TemplateReport:
    """What `template` makes of sample conversations. `bos` and `eos` are the texts of those tokens;
    without them it gets empty ones, as engines do.

    Raises:
        MoestroError: no process could be had, or `stopper` ended it.
    """
    stopper = stopper or Stopper()
    told = _run(template, {"bos_token": bos or "", "eos_token": eos or ""}, limits, stopper)
    tried = told.tried
    renderings = tuple(
        rendering
        for conversation in get_args(Conversation)
        if (rendering := _best(conversation, tried)) is not None
    )
    texts = {r.conversation: r.text for r in renderings if r.outcome == "rendered"}
    closed = next((tried[t.name].text for t in CLOSED if _is_rendered(tried.get(t.name))), None)
    return TemplateReport(
        renderings=renderings,
        opens_answer=_opens(texts.get("plain"), closed, texts.get("turns")),
        keeps_prefix=_keeps_prefix(tried.get(BEGUN.name), tried.get(CONTINUED.name)),
        changes_data=any(one.changed_data for one in tried.values()),
        after_answer=_after_answer(texts.get("turns")),
        marks=_marks(one.text for one in tried.values()),
        private=told.private,
        unclear=told.unclear,
    )


def _best(conversation: Conversation, tried: Mapping[str, _Tried]) -> Rendering | None:
    """Of the forms that were tried the one that went furthest and lost least."""
    found = []
    for trial in conversations.MAIN[conversation]:
        one = tried.get(trial.name)
        if one is None:
            continue
        lost = conversations.lost_from(conversation, one.text) if _is_rendered(one) else ()
        found.append(Rendering(conversation, one.outcome, one.text, one.message, lost))
    for trial in conversations.BESIDE.get(conversation, ()):
        one = tried.get(trial.name)
        if one is not None and one.outcome in UNSAFE:
            found.append(Rendering(conversation, one.outcome, one.text, one.message))
    unsafe = [r for r in found if r.outcome in UNSAFE]
    if unsafe:
        return unsafe[0]
    return min(found, key=lambda r: (r.outcome != "rendered", len(r.lost)), default=None)


def _is_rendered(one: _Tried | None) -> bool:
    return one is not None and one.outcome == "rendered"


def _opens(plain: str | None, closed: str | None, turns: str | None) -> bool | None:
    """Some templates always end a question with the mark that opens the answer (`[/INST]`), asked
    for or not. So where asking changes nothing, what stands between a question and its answer in a
    longer conversation tells: a text that stops short of that opens nothing."""
    if plain is None or closed is None:
        return None
    if plain.startswith(closed) and plain != closed:
        return True
    if turns is None:
        return None
    tail = plain.rpartition(conversations.QUESTION)[2].strip()
    before = turns.partition(conversations.ANSWER)[0]
    opening = before.rpartition(conversations.QUESTION)[2].strip()
    return tail == opening or not opening.startswith(tail)


def _keeps_prefix(begun: _Tried | None, continued: _Tried | None) -> bool | None:
    """What follows the last answer may differ: it is read again anyway."""
    if begun is None or continued is None or not (_is_rendered(begun) and _is_rendered(continued)):
        return None
    before, answer, _ = begun.text.partition(conversations.ANSWER)
    return continued.text.startswith(before + answer) if answer else None


def _after_answer(turns: str | None) -> str | None:
    if turns is None or conversations.ANSWER not in turns:
        return None
    after = turns.partition(conversations.ANSWER)[2].partition(conversations.NEXT_QUESTION)[0]
    return after[:_MOST_AFTER_ANSWER]


def _marks(texts: Iterable[str]) -> tuple[str, ...]:
    """What is not printable is no mark, and could do harm to a terminal."""
    found = dict.fromkeys(mark for text in texts for mark in MARK.findall(text))
    return tuple(mark for mark in found if mark.isprintable())[:_MOST_MARKS]


def _run(template: str, tokens: Mapping[str, str], limits: Limits, stopper: Stopper) -> _Told:
    """What came of each trial that the child got to; the one that ended it included."""
    request = {
        "template": template,
        "tokens": tokens,
        "trials": [{"name": trial.name, "variables": trial.variables()} for trial in TRIALS],
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "text_characters": limits.text_characters,
    }
    with contextlib.ExitStack() as things:
        try:
            log = things.enter_context(tempfile.TemporaryFile(prefix="moestro-"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "moestro.doctor.template.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise _untried(error.strerror or type(error).__name__) from error
        things.callback(_end, process)
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        things.enter_context(stopper.ending(process.kill))
        with _clock(START_SECONDS, stop):
            first = _begun(process, request)
        with _clock(limits.wall_seconds, stop):
            told = _told(process, first)
            status = process.wait()
        if stopper.stopped:
            raise _untried("it was stopped")
        tried = told.tried
        missing = [trial for trial in TRIALS if trial.name not in tried]
        stopped = any(one.outcome in UNSAFE for one in tried.values())
        if status != 0 and missing and not stopped:
            log.seek(0)
            said = log.read(_MOST_LOG_BYTES).decode(errors="replace").strip()
            if status > 0 and said and not timed_out.is_set():
                raise _untried(said.splitlines()[-1])
            if not told.ready:
                raise _untried("its process ended before it was ready")
            tried[missing[0].name] = _Tried("out-of-limits", "", _how_it_died(status, limits))
        return told


@contextlib.contextmanager
def _clock(seconds: float, stop: Callable[[], None]) -> Iterator[None]:
    clock = threading.Timer(seconds, stop)
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


def _begun(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> bytes:
    """The child's first line, once it has the request."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # what it died of is told by its status
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
    return process.stdout.readline(_MOST_LOG_BYTES)


def _told(process: subprocess.Popen[bytes], first: bytes) -> _Told:
    assert process.stdout is not None
    said = process.stdout.read(_MOST_OUTPUT_BYTES)
    if len(said) == _MOST_OUTPUT_BYTES:
        process.kill()
    tried: dict[str, _Tried] = {}
    private = unclear = None
    for line in said.splitlines():
        try:
            told = json.loads(line)
            if "unclear" in told:
                private, unclear = told["private"], told["unclear"]
                continue
            name = str(told["trial"])
            outcome = told["outcome"]
        except (ValueError, LookupError, TypeError):
            break  # it died in the middle of a line
        if outcome in get_args(Outcome):
            tried[name] = _Tried(outcome, told["text"], told["message"], told["changed_data"])
    return _Told(first.startswith(b"{"), tried, private, unclear)


def _how_it_died(status: int, limits: Limits) -> str:
    if -status in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return f"its process crashed ({signal.Signals(-status).name})"
    if status > 0:
        return "it takes more memory than any template needs"
    return f"it does not end: stopped after {limits.cpu_seconds} s of processor time"


def _untried(why: str) -> MoestroError:
    return MoestroError(
        f"The chat template could not be tried: {why.rstrip('.')}.",
        hint="It needs jinja2, a process, and a little room in the folder for temporary files.",
        code="template-not-tried",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it holds nothing that would have to be saved
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    process.wait()
