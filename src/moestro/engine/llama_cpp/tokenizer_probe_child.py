"""Child process of `tokenizer_probe`: loads a model's vocabulary, and nothing else of it.

Usage: python -m moestro.engine.llama_cpp.tokenizer_probe_child LIFELINE, with JSON lines on stdin:
first the model's path and texts to take there and back, then one question a line; each is answered
by one report. It ends with its stdin, and with LIFELINE, a pipe: it may hang in the engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import LOAD_MODE_NONE, flush_log
from moestro.engine.llama_cpp.std_string import function_of_string, std_string
from moestro.engine.orphans import end_with_owner
from moestro.errors import EngineMismatch
from moestro.units import GIB, KIB

_CPU_SECONDS = 60
_DATA_BYTES = 4 * GIB
_TEMPLATE_BYTES = GIB // 4
_MOST_PIECE_BYTES = 4096
_MOST_ENDS = 64
_SPECIAL = 1 << 3 | 1 << 4
"""`LLAMA_TOKEN_ATTR_CONTROL` and `LLAMA_TOKEN_ATTR_USER_DEFINED`."""

_GOOD, _BAD = b"{{ messages[0].content }}", b"{% if messages %}"


class _Vocabulary:
    def __init__(self, library: ctypes.CDLL, model: int) -> None:
        self.library = library
        self.handle = library.llama_model_get_vocab(model)
        self.count = library.llama_vocab_n_tokens(self.handle)

    def facts(self, texts: Iterable[str]) -> dict[str, Any]:
        library, handle = self.library, self.handle
        ends = [token for token in range(self.count) if library.llama_vocab_is_eog(handle, token)]
        return {
            "vocabulary": self.count,
            "bos": self.named(library.llama_vocab_bos(handle)),
            "eos": self.named(library.llama_vocab_eos(handle)),
            "add_bos": library.llama_vocab_get_add_bos(handle),
            "ends": [self.piece(token) for token in ends[:_MOST_ENDS]],
            "round_trips": [self.there_and_back(text) for text in texts],
        }

    def there_and_back(self, text: str) -> tuple[int, str]:
        """How many tokens, and their text, piece by piece as a server streams it."""
        tokens = self.tokens(text, special=False)
        came_back = b"".join(self.raw_piece(token) for token in tokens).decode(errors="replace")
        return len(tokens), came_back

    def marks(self, marks: list[str]) -> dict[str, Any]:
        single = {mark: len(self.tokens(mark, special=True)) == 1 for mark in marks}
        listed, barred = [mark for mark in marks if single[mark]], False
        if not all(single.values()):
            listed, barred = self._entries(set(marks))
        return {"single": single, "listed": listed, "barred": barred}

    def _entries(self, marks: set[str]) -> tuple[list[str], bool]:
        """Which of `marks` are entries, and whether a special token is written with bars."""
        library, handle = self.library, self.handle
        wanted = {mark.encode(): mark for mark in marks}
        listed, barred = [], False
        for token in range(self.count):
            text = library.llama_vocab_get_text(handle, token) or b""
            if text in wanted:
                listed.append(wanted[text])
            if not barred and text.startswith(b"<|") and text.endswith(b"|>"):
                barred = self.is_special(token)
        return listed, barred

    def answer_end(self, text: str) -> dict[str, Any] | None:
        """The first token of `text`."""
        tokens = self.tokens(text, special=True)
        # A tokenizer that puts a space before everything makes a token of its own of it.
        first = next((token for token in tokens if self.piece(token).strip()), None)
        if first is None:
            return None
        return {
            "piece": self.piece(first),
            "special": self.is_special(first),
            "ends": self.library.llama_vocab_is_eog(self.handle, first),
        }

    def is_special(self, token: int) -> bool:
        return bool(self.library.llama_vocab_get_attr(self.handle, token) & _SPECIAL)

    def tokens(self, text: str, *, special: bool) -> list[int]:
        raw = text.encode(errors="replace")
        most = len(raw) + 16
        found = (ctypes.c_int32 * most)()
        count = self.library.llama_tokenize(self.handle, raw, len(raw), found, most, False, special)
        return list(found[: max(count, 0)])

    def named(self, token: int) -> str | None:
        return self.piece(token) if token >= 0 else None

    def piece(self, token: int) -> str:
        return self.raw_piece(token).decode(errors="replace")

    def raw_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_MOST_PIECE_BYTES)
        length = self.library.llama_token_to_piece(
            self.handle, token, buffer, _MOST_PIECE_BYTES, 0, True
        )
        return buffer.raw[: max(length, 0)]


def _accepts(library: ctypes.CDLL, template: bytes) -> bool | None:
    """What the engine's parser says of `template`; None where it cannot be asked, or does not tell
    a good template from a bad one, so that the way in which it was asked is wrong."""
    found = function_of_string(library, "common_chat_verify_template", "b")
    if found is None:
        return None
    function, layout = found
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_void_p, ctypes.c_bool]

    def verdict(text: bytes) -> bool:
        address, _alive = std_string(text, layout)
        return bool(function(address, True))

    if not verdict(_GOOD) or verdict(_BAD):
        return None
    return verdict(template)


def _limit() -> None:
    """A vocabulary of 250,000 tokens takes half a GiB and two seconds."""
    if sys.platform == "win32":
        return
    import resource

    limits = [(resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_CORE, 0)]
    if sys.platform == "linux":
        limits.append((resource.RLIMIT_DATA, _DATA_BYTES))
    for what, most in limits:
        with contextlib.suppress(OSError, ValueError):  # a stricter one is set already
            resource.setrlimit(what, (most, most))


def _limit_template() -> None:
    """What a template may take on top of what is there already. Only Linux tells, and heeds it."""
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith("VmData:"))
        most = int(line.split()[1]) * KIB + _TEMPLATE_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (min(most, _DATA_BYTES), _DATA_BYTES))


def main() -> int:
    end_with_owner(int(sys.argv[1]))
    report = claim_report_stream()
    _limit()
    try:
        library = open_library()
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START
    start = json.loads(sys.stdin.buffer.readline())
    library.llama_backend_init()
    params = library.llama_model_default_params()
    params.vocab_only, params.load_mode, params.n_gpu_layers = True, LOAD_MODE_NONE, 0
    model = library.llama_model_load_from_file(os.fsencode(start["model"]), params)
    if not model:
        flush_log(library)
        report.send("refused")
        return FAILED_START
    vocabulary = _Vocabulary(library, model)
    report.send("loaded", **vocabulary.facts(start["texts"]))
    for line in sys.stdin.buffer:
        _answer(vocabulary, json.loads(line), report)
    flush_log(library)
    return 0


def _answer(vocabulary: _Vocabulary, question: dict[str, Any], report: ReportStream) -> None:
    match question:
        case {"marks": marks, "after_answer": after}:
            end = vocabulary.answer_end(after) if after else None
            report.send("marks", answer_end=end, **vocabulary.marks(marks))
        case {"template": template}:
            raw = template.encode(errors="replace")
            _limit_template()
            accepts = _accepts(vocabulary.library, raw)
            if not accepts:
                flush_log(vocabulary.library)  # it says why
            report.send("template", accepts=accepts)


if __name__ == "__main__":
    sys.exit(main())
