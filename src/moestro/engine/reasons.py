"""Why an engine process ended: its log and exit status → one sentence and a hint. Pure.

Each rule knows one line that llama.cpp (or the system) writes. The rules are tried from the most
telling to the most general one, each on the whole log, because the root cause is rarely the last
line: "failed to load model" follows them all.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.units import format_bytes

_OWN_PREFIX = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] ")
SHOWN_LOG_LINES = 20
"""How much of the log goes with a reason that says too little by itself."""

_AGAIN = "Download or convert the file again, and compare its size and hash with the source's."
_LAST_LINES = "The last lines of its log show how far it came."
_SMALLER = "Lower --context or --parallel, use --cache-type q8_0, or take a smaller model file."


@dataclass(frozen=True, slots=True)
class Reason:
    """`log_helps`: the log's last lines say more than the sentence, so they belong beside it.
    `outside`: it lies with the machine, or with whoever ended the engine; not with the model.
    `memory`: less of it would have sufficed for other settings."""

    sentence: str
    hint: str | None = None
    log_helps: bool = False
    outside: bool = False
    memory: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    sentence: str
    hint: str | None = None
    log_helps: bool = False
    outside: bool = False
    memory: bool = False


def _rule(
    pattern: str,
    sentence: str,
    hint: str | None = None,
    *,
    log_helps: bool = False,
    outside: bool = False,
    memory: bool = False,
) -> _Rule:
    return _Rule(re.compile(pattern), sentence, hint, log_helps, outside, memory)


_RULES = (
    _rule(
        r"does not support different K \((?P<what>[^)]*)\) and V \([^)]*\) cache types",
        "{model} keeps no values of their own in its cache, so both halves need one type.",
        "Give both halves of the cache the same type.",
    ),
    _rule(
        r"unknown model architecture: '(?P<what>[^']*)'",
        "{model} has the architecture “{what}”, which this engine does not know.",
        "Look for a newer moestro, or a GGUF of a supported architecture.",
    ),
    _rule(
        r"CLIP cannot be used as main model",
        "{model} is a projector (the eyes or ears of a model), not a language model.",
        "Give the language model's file; its projector goes beside it.",
    ),
    _rule(
        r"failed to load (?:multimodal|CLIP) model[^']*'(?P<what>[^']*)'",
        "The projector {what} does not load together with {model}.",
        "Take the projector (mmproj) file that was published with this model.",
    ),
    _rule(
        r"(?:invalid magic characters|failed to read magic)",
        "{model} is not a GGUF file.",
        "Engines here run GGUF files; convert the model first.",
    ),
    _rule(
        r"failed to open GGUF file '[^']*' \((?P<what>[^)]*)\)",
        "{model} could not be opened: {what}.",
        "Check the path and that this user may read it.",
        outside=True,
    ),
    _rule(
        r"this GGUF file is version (?P<what>\d+) but this software only supports up to",
        "{model} is a GGUF of version {what}, newer than this engine.",
        "Look for a newer moestro.",
    ),
    _rule(
        r"mismatch between the host and model endianness",
        "{model} was written for a machine of the other byte order.",
        "Convert it again for little-endian machines.",
    ),
    _rule(
        r"GGUFv1 is no longer supported",
        "{model} is a GGUF of version 1, which engines no longer read.",
        "Convert the original model again.",
    ),
    _rule(
        r"(?:data is not within the file bounds|failed to read key-value pairs"
        r"|failed to read tensor info|unexpectedly reached end of file|failed to read tensor data)",
        "{model} is cut short: it ends before its header says it does.",
        _AGAIN,
    ),
    _rule(
        r"tensor '(?P<what>blk\.\d+\.attn_norm\.weight)' not found",
        "{model} lacks the tensor {what}, the first one of its block.",
        "If that block is the multi-token prediction (MTP) layer, a converter dropped it while the "
        "header still declares it: take a file converted with its MTP layer, or without the "
        "declaration.",
    ),
    _rule(
        r"tensor '(?P<what>[^']*)' not found",
        "{model} lacks the tensor {what}.",
        _AGAIN,
    ),
    _rule(
        r"tensor '(?P<what>[^']*)' has wrong shape; expected (?P<more>[^;]*), got",
        "{model} contradicts itself: the tensor {what} has not the shape its header asks for.",
        _AGAIN,
    ),
    _rule(
        r"key not found in model: (?P<what>\S+)",
        "{model} lacks the metadata key {what}.",
        _AGAIN,
    ),
    _rule(
        r"gguf_init_from_\w+: (?P<what>.+)",
        "{model} has a damaged header: {what}.",
        _AGAIN,
    ),
    _rule(
        r"couldn't bind HTTP server socket, hostname: (?P<what>\S+), port: (?P<more>\d+)",
        "The engine could not listen on {what}:{more}; another program has that port.",
        "Start again, or end the other program.",
        outside=True,
    ),
    _rule(
        r"(?:model doesn't contain MTP layers|failed to create MTP context)",
        "{model} has no multi-token prediction (MTP) layer to draft with.",
        "Start it with --mtp 0.",
    ),
    _rule(
        r"quantized V cache requires flash_attn|V cache quantization requires",
        "{model} cannot use a quantized value cache: it runs without flash attention here.",
        "Use --cache-type f16.",
    ),
    _rule(
        r"n_seq_max must be <= (?P<what>\d+)",
        "The engine serves at most {what} streams at once.",
        "Lower --parallel.",
    ),
    _rule(
        r"libgomp: Thread creation failed: (?P<what>.+)",
        "The engine could not start all of its threads: {what}.",
        "Lower --threads, or raise the limit on this user's processes (ulimit -u).",
        outside=True,
    ),
    _rule(
        r"MTP block missing",
        "{model} declares a multi-token prediction (MTP) layer but lacks its tensors.",
        "Start it with --mtp 0, or take a file converted with that layer.",
    ),
    _rule(
        r"GGML_ASSERT\(n_ubatch > n_keep_tail\)",
        "The micro-batch is too small for drafts of this depth on {model}.",
        "Raise --ubatch above the number of drafted tokens plus one, or lower --mtp.",
    ),
    _rule(
        r"(?:no kernel image is available|unsupported toolchain|driver version is insufficient)",
        "The installed engine build does not fit this graphics card or its driver.",
        "Update the driver, or reinstall the engine for another build.",
        outside=True,
    ),
    _rule(
        r"failed to allocate (?P<more>\S+) buffer of size (?P<bytes>\d+)",
        "Not enough memory for {model}: a {more} buffer of {size} could not be had.",
        _SMALLER,
        outside=True,
        memory=True,
    ),
    _rule(
        r"(?:failed to allocate buffer of size (?P<bytes>\d+))",
        "Not enough memory for {model}: a buffer of {size} could not be had.",
        _SMALLER,
        outside=True,
        memory=True,
    ),
    _rule(
        r"(?:out of memory|insufficient memory|std::bad_alloc|Cannot allocate memory"
        r"|OutOfDeviceMemory|unable to allocate|failed to allocate)",
        "Not enough memory for {model} with these settings.",
        _SMALLER,
        outside=True,
        memory=True,
    ),
    _rule(
        r"(?P<where>[\w.+-]+:\d+): "
        r"(?P<what>GGML_ASSERT\(.*\) failed|.*(?:fatal error|CUDA error).*)",
        "The engine stopped on a failed check of its own ({where}: {what}).",
        "This is a fault of the engine, or a file it does not expect; other settings may avoid it.",
        log_helps=True,
    ),
    _rule(
        r"(?:ImportError|OSError): (?P<what>.+)",
        "The inference engine cannot be loaded: {what}.",
        "Reinstall it; the build for this kind of GPU may not fit this system.",
        outside=True,
    ),
    _rule(
        r"error loading model: (?P<what>.+)",
        "The engine refused {model}: {what}.",
    ),
    _rule(
        r"failed to initialize speculative decoding context: (?P<what>.+)",
        "The engine could not set up drafting with {model}: {what}.",
        "Start it with --mtp 0 and without n-grams.",
    ),
    _rule(
        r"failed to initialize the context: (?P<what>.+)",
        "The engine could not set up {model} with these settings: {what}.",
        "Try the defaults, then change one setting at a time.",
    ),
)

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


def explain_exit(
    log: Sequence[str], exit_code: int | None, model: str, *, oom_killed: bool = False
) -> Reason:
    """Why the engine that ran `model` (a file's name) ended.

    `exit_code` is as in `subprocess`: negative for a signal, None if it is still running.
    `oom_killed`: the kernel ended a process for want of memory meanwhile.
    """
    ended_by = signal_of(exit_code)
    if ended_by is signal.SIGKILL and oom_killed:
        return Reason(
            f"The system ran out of memory and ended the engine that ran {model} (SIGKILL).",
            _SMALLER,
            outside=True,
            memory=True,
        )
    if ended_by in _FROM_OUTSIDE:
        # Its log is that of a healthy engine, so nothing in there may be blamed.
        return _killed(ended_by)
    lines = [_OWN_PREFIX.sub("", line) for line in log]
    for rule in _RULES:
        for line in lines:
            found = rule.pattern.search(line)
            if found:
                return _fill(rule, found, model)
    return _unexplained(ended_by, exit_code)


def signal_of(exit_code: int | None) -> signal.Signals | None:
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code)
    except ValueError:
        return None  # a real-time signal


def _fill(rule: _Rule, found: re.Match[str], model: str) -> Reason:
    words = {name: (text or "").strip().rstrip(".") for name, text in found.groupdict().items()}
    size = format_bytes(int(words["bytes"])) if words.get("bytes") else "?"
    sentence = rule.sentence.format(model=model, size=size, **words)
    return Reason(sentence, rule.hint, rule.log_helps, rule.outside, rule.memory)


def _killed(ended_by: signal.Signals) -> Reason:
    if ended_by is signal.SIGKILL:
        return Reason(
            "The engine was killed from outside (SIGKILL).",
            "If nobody did that, the system ran out of memory: look for “Out of memory” in the "
            f"kernel's log. {_SMALLER}",
            outside=True,
        )
    return Reason(f"The engine was ended from outside ({ended_by.name}).", outside=True)


def _unexplained(ended_by: signal.Signals | None, exit_code: int | None) -> Reason:
    if ended_by is signal.SIGILL:
        return Reason(
            "The engine uses instructions that this processor does not have (SIGILL).",
            "The prebuilt engine needs AVX2 on x86-64; build it from source on older machines.",
            outside=True,
        )
    if ended_by is not None:
        return Reason(f"The engine crashed ({ended_by.name}).", _LAST_LINES, log_helps=True)
    return Reason(
        f"The engine ended by itself (exit status {exit_code}) without saying why.",
        _LAST_LINES,
        log_helps=True,
    )
