"""Runs CMake and the compiler: progress out of their words, a log of all of them, and an end that
keeps what was compiled."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.build.recipe import Recipe
from moestro.engine.build.toolchain import Toolchain
from moestro.errors import EngineError
from moestro.units import GIB, format_bytes
from moestro.words import shown

JOB_BYTES = 3 * GIB // 2
"""Memory that one compiler needs for the largest files of these engines."""

_MOST_LINE_BYTES = 1 << 16
_MOST_LOG_BYTES = 256 << 20
_PATIENCE_SECONDS = 10.0
_NINJA = re.compile(r"\[(\d+)/(\d+)\]")
_MAKE = re.compile(r"\[ *(\d+)%\]")
_ERROR = re.compile(
    r"\berror\b ?:|^CMake Error|undefined reference to|^ld: |^ninja: error|\*\*\* |"
    r"No space left on device|Killed signal|fatal:",
)
_NO_CAUSE = re.compile(r"^(?:g?make|ninja: build stopped)\b")

Advance = Callable[[int, int], None]
"""Told how many steps of how many are done."""


@dataclass(slots=True)
class _Watch:
    """Reads what a tool prints, line by line."""

    advance: Advance | None
    error: str | None = None
    _wants_more: bool = False

    def see(self, line: str) -> None:
        step = parse_progress(line)
        if step is not None and self.advance is not None:
            self.advance(*step)
        words = line.strip()
        if self._wants_more and words:  # CMake says where first, and on the next line what
            self.error = f"{self.error} {words}"
            self._wants_more = False
        elif self.error is None and _ERROR.search(line) and not _NO_CAUSE.search(line):
            self.error = words
            self._wants_more = words.startswith("CMake Error at")


def parse_progress(line: str) -> tuple[int, int] | None:
    """Steps done and steps in all: `[12/88]` of ninja, `[ 34%]` of make."""
    match = _NINJA.match(line)
    if match:
        done, total = int(match[1]), int(match[2])
        return (done, total) if 0 <= done <= total else None
    match = _MAKE.match(line)
    return (int(match[1]), 100) if match and int(match[1]) <= 100 else None


def job_count(asked: int | None, cores: int, free_bytes: int) -> int:
    """Compilers at once: what was asked for, else one a core, fewer where memory is short.

    Raises:
        EngineError: there is not memory for one.
    """
    fitting = free_bytes // JOB_BYTES
    if fitting < 1:
        raise EngineError(
            f"Compiling takes about {format_bytes(JOB_BYTES)} of memory, and "
            f"{format_bytes(free_bytes)} is free.",
            hint="Stop what else is running, or build on another machine of the same kind.",
            code="build-needs-memory",
        )
    return asked if asked is not None else max(1, min(cores, fitting))


def configure(
    tools: Toolchain, recipe: Recipe, source: Path, build: Path, log: Path, *, held: int | None
) -> None:
    """Lets CMake write the build folder, which may hold an earlier attempt.

    Raises:
        EngineError: CMake failed; the sentence holds its first complaint.
    """
    command = [
        str(tools.cmake), "-G", tools.generator, "-S", str(source), "-B", str(build),
        f"-DCMAKE_MAKE_PROGRAM={tools.builder}", f"-DCMAKE_C_COMPILER={tools.cc}",
        f"-DCMAKE_CXX_COMPILER={tools.cxx}", *recipe.flags,
    ]  # fmt: skip
    if tools.nvcc is not None:
        command.append(f"-DCMAKE_CUDA_COMPILER={tools.nvcc}")
    _run(command, log, None, held, "CMake failed")


def compile_targets(
    tools: Toolchain, build: Path, targets: Sequence[str], jobs: int, log: Path,
    advance: Advance | None = None, *, held: int | None = None,
) -> None:  # fmt: skip
    """Compiles `targets`. `advance` is told how far it is. `held` is a file descriptor that the
    compiler inherits, so that whatever it locks stays locked while a compiler lives.

    An interrupt ends the compiler and leaves what is done: the next call goes on from there.

    Raises:
        EngineError: it failed; the sentence holds the first error, the hint names the log.
    """
    command = [str(tools.builder), "-C", str(build), f"-j{jobs}", *targets]
    if shutil.which("nice"):
        command = ["nice", "-n", "10", *command]
    _run(command, log, advance, held, "The compiler failed")


def _run(
    command: Sequence[str], log: Path, advance: Advance | None, held: int | None, failed: str
) -> None:
    environment = {**os.environ, "LC_ALL": "C", "NINJA_STATUS": "[%f/%t] "}
    # Make would take jobs of an outer make from it, and verbose CMake has other lines.
    for name in ("MAKEFLAGS", "MFLAGS", "VERBOSE", "CMAKE_GENERATOR"):
        environment.pop(name, None)
    watch = _Watch(advance)
    with log.open("ab", buffering=0) as file:  # a person may be reading it
        file.write(f"$ {' '.join(command)}\n".encode(errors="replace"))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we end it
                pass_fds=() if held is None else (held,),
            )
        except OSError as error:
            raise EngineError(f"{command[0]} cannot be started: {error.strerror}.") from error
        try:
            assert process.stdout is not None
            with process.stdout as output:
                written_bytes = 0
                while line := output.readline(_MOST_LINE_BYTES):
                    watch.see(line.decode(errors="replace"))
                    if written_bytes < _MOST_LOG_BYTES:
                        written_bytes += file.write(line)
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    if status:
        raise _failure(failed, watch.error, status, log)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks first: ninja then ends its compilers and deletes half-written objects."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        family = []
    # Not SIGINT, which is ignored in what a shell started in the background.
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(process.pid, signal.SIGKILL)
        process.wait()
    # Ninja gives each compiler a process group of its own.
    for child in family:
        try:
            child.kill()
        except psutil.Error:
            continue


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _failure(failed: str, error: str | None, status: int, log: Path) -> EngineError:
    hint = f"Everything it said is in {log}."
    if error is not None and "Killed signal" in error:
        hint = f"It was killed, mostly for lack of memory: try --jobs 1. {hint}"
    elif error is not None and "No space left" in error:
        hint = f"The disk is full. {hint}"
    why = shown(error, 300).rstrip(".") if error else f"exit status {status}"
    return EngineError(f"{failed}: {why}.", hint=hint, code="build-failed")
