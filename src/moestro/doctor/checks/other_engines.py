"""Do other inference servers run on this host?

Each holds a model of its own: memory, and the cores' time. Processes that this user may not see are
not counted, and one that ends while it is looked at is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity
from moestro.units import GIB, format_bytes

LARGE_BYTES = 2 * GIB
LARGE_SHARE = 0.05
"""Memory of its own above both of these is missing elsewhere."""

_MOST_NAMED = 5
_MOST_ANCESTORS = 64
_MOST_WORDS = 64

_MOST_PROCESSES = 4096
"""Each costs some 50 microseconds; kernel threads, which a large machine has thousands of, are the
oldest."""

_OWN = "moestro"

_PROGRAMS = {
    "llama-server": "llama-server",
    "ollama": "Ollama",
    "vllm": "vLLM",
    "koboldcpp": "KoboldCpp",
    "lm-studio": "LM Studio",
    "lm studio": "LM Studio",
    "lmstudio": "LM Studio",
    "text-generation-launcher": "text-generation-inference",
    "text-generation-server": "text-generation-inference",
    "text-generation-router": "text-generation-inference",
    "sglang": "SGLang",
    "sglang_router": "SGLang",
    "aphrodite": "Aphrodite",
    "tabbyapi": "TabbyAPI",
    "mistralrs-server": "mistral.rs",
    "local-ai": "LocalAI",
    "localai": "LocalAI",
    "lmdeploy": "LMDeploy",
    "tritonserver": "Triton",
}
"""By the name of a program, a script or the first part of a Python module, in small letters."""

_SERVE = {"Ollama": ("serve", "start", "runner"), "vLLM": ("serve",), "LMDeploy": ("serve",)}
"""Of programs that are clients too, the words after which they serve."""

_MODULES = {"llama_cpp.server": "llama-cpp-python", "moestro.engine.llama_cpp.worker": _OWN}
_PYTHON = re.compile(r"(python|pypy)[\d.]*(\.exe)?")
_TITLE = re.compile(r"(vllm|sglang)::")
"""What these call their workers."""

_SUFFIX = re.compile(r"(?<=koboldcpp)[-_].*$|[-_]\d+(\.\d+)*([-_.].*)?\.appimage$|\.(exe|py)$")


@dataclass(frozen=True, slots=True)
class _Engine:
    """`own_bytes` is memory that is no file's, swap included; None where it is hidden."""

    pid: int
    name: str
    own_bytes: int | None
    unbounded: bool


def run(case: Case) -> Iterator[Finding]:
    host = case.host
    if host.text("proc/self/status") is None:
        return
    folders = host.paths("proc/[0-9]*")
    looked_at = folders[-_MOST_PROCESSES:]
    cut = ""
    if len(looked_at) < len(folders):
        cut = (
            f"; only {len(looked_at):,} of {len(folders):,} processes were looked at, those with "
            "the highest numbers"
        )
    found = sorted(_engines(host, looked_at), key=lambda engine: -(engine.own_bytes or 0))
    own = [engine for engine in found if engine.name == _OWN]
    engines = [engine for engine in found if engine.name != _OWN]
    if own:
        yield Finding(
            Severity.INFO,
            "moestro-running",
            "moestro serves here already",
            _listed(own) + cut,
            "Nothing needs to be done if that is the service you mean. While it runs, what it "
            "holds is missing from the memory that a second plan is made with.",
        )
    if not engines:
        if not own:
            yield ok(
                "other-engines", "No other inference server is to be seen",
                cut.removeprefix("; ") or f"{len(folders):,} processes",
            )  # fmt: skip
        return
    total = sum(engine.own_bytes or 0 for engine in engines)
    memory = case.inventory.memory.total_bytes
    unbounded = any(engine.unbounded for engine in engines)
    large = total > max(LARGE_BYTES, memory * LARGE_SHARE)
    yield Finding(
        Severity.WARN if large or unbounded else Severity.INFO,
        "other-engine-running",
        "Another inference server runs here" if len(engines) == 1
        else "Other inference servers run here",
        _listed(engines) + cut,
        "Stop it before going live if it is not needed: it holds memory, and takes cores while it "
        "works."
        + (" Give that llama-server a --cache-ram in MiB." if unbounded else ""),
    )  # fmt: skip


def _listed(engines: list[_Engine]) -> str:
    more = len(engines) - _MOST_NAMED
    told = ", ".join(_told(engine) for engine in engines[:_MOST_NAMED])
    return told + (f" and {more} more" if more > 0 else "")


def _told(engine: _Engine) -> str:
    size = "" if engine.own_bytes is None else f", {format_bytes(engine.own_bytes)} of its own"
    cache = ", its prompt cache has no bound" if engine.unbounded else ""
    return f"{engine.name} (process {engine.pid}{size}{cache})"


def _engines(host: Host, folders: list[str]) -> Iterator[_Engine]:
    own = host.table("proc/self/status").get("Pid")
    for folder in folders:
        pid = folder.split("/")[1]
        if not (pid.isdecimal() and len(pid) < 12):
            continue
        words = _words(host.data(f"{folder}/cmdline"))
        name = engine_name(words)
        if name is None or _is_own(host, pid, own):
            continue
        unbounded = name == "llama-server" and _unbounded(words)
        yield _Engine(int(pid), name, host.own_bytes(pid), unbounded)


def _words(data: bytes | None) -> list[str]:
    return (data or b"").decode(errors="replace").rstrip("\0").split("\0")[:_MOST_WORDS]


def engine_name(words: list[str]) -> str | None:
    """Whose command line this is; None if no inference server's that is known here."""
    title = _TITLE.match(words[0].strip().lower())
    if title:
        return _PROGRAMS[title[1]]
    program = _base(words[0])
    if not _PYTHON.fullmatch(program):
        return _serving(program, words[1:])
    for place, word in enumerate(words[1:], start=1):
        if word == "-m" and place + 1 < len(words):
            module = words[place + 1]
            return _MODULES.get(module) or _PROGRAMS.get(module.partition(".")[0].lower())
        if word == "-c":
            return None
        if not word.startswith("-"):  # the script, the first word that is no option
            return _serving(_base(word), words[place + 1 :])
    return None


def _serving(program: str, words: list[str]) -> str | None:
    name = _PROGRAMS.get(program)
    needed = _SERVE.get(name or "")
    return name if needed is None or (words and words[0] in needed) else None


def _base(word: str) -> str:
    """`/opt/LM-Studio-0.3.5-x64.AppImage` → `lm-studio`. Electron programs put all their words into
    the first one."""
    name = word.split(" --", 1)[0].strip().lower().replace("\\", "/").rsplit("/", 1)[-1]
    return _SUFFIX.sub("", name)


def _unbounded(words: list[str]) -> bool:
    for place, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("-cram", "--cache-ram"):
            value = value or (words[place + 1] if place + 1 < len(words) else "")
            if value.startswith("-"):
                return True
    return False


def _is_own(host: Host, pid: str, own: str | None) -> bool:
    """This process, or one that it started."""
    for _ in range(_MOST_ANCESTORS):
        if pid == own:
            return True
        parent = host.table(f"proc/{pid}/status").get("PPid", "0")
        if parent in ("0", pid) or not (parent.isdecimal() and len(parent) < 12):
            return False
        pid = parent
    return False


CHECK = Check("other-engines", "memory", "Do other inference servers run on this host?", run)
