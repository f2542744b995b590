"""The engine's view of the exported file: logits through llama.cpp's C API, replies through its
server. Struct offsets belong to xllamacpp 2026.10.11549 and are checked before use."""

from __future__ import annotations

import contextlib
import ctypes
import json
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

F32 = 0
FLASH_ATTENTION_OFF = 0


class _Blob(ctypes.Structure):
    """A parameter struct of the engine, handled by offset."""

    _fields_ = [("data", ctypes.c_char * 256)]

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<i", (ctypes.c_char * 256).from_buffer(self), offset, value)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<i", bytes(self), offset)[0])


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class Logits:
    """A loaded model that gives the logits of every position of a text (float32 cache)."""

    def __init__(self, path: Path, context: int = 2048, threads: int = 2) -> None:
        import xllamacpp

        root = Path(xllamacpp.__file__).parent
        lib = self.lib = ctypes.CDLL(str(next(root.glob("*.so"))))
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(lib, name).restype = _Blob
        lib.llama_model_load_from_file.restype = ctypes.c_void_p
        lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _Blob]
        lib.llama_init_from_model.restype = ctypes.c_void_p
        lib.llama_init_from_model.argtypes = [ctypes.c_void_p, _Blob]
        lib.llama_get_memory.restype = ctypes.c_void_p
        lib.llama_get_memory.argtypes = [ctypes.c_void_p]
        lib.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        lib.llama_decode.argtypes = [ctypes.c_void_p, _Batch]
        lib.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
        lib.llama_get_logits.argtypes = [ctypes.c_void_p]
        lib.llama_model_get_vocab.restype = ctypes.c_void_p
        lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        lib.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
        lib.llama_tokenize.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
            ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
        ]  # fmt: skip
        self._quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
            lambda level, text, data: None
        )
        lib.llama_log_set(self._quiet, None)
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"the engine does not load {path}")
        p = lib.llama_context_default_params()
        if (p.get(4), p.get(8), p.get(104)) != (2048, 512, 1):
            raise RuntimeError("this engine lays out its context parameters differently")
        for offset, value in ((0, context), (4, context), (28, threads), (32, threads),
                              (52, FLASH_ATTENTION_OFF), (104, F32), (108, F32)):  # fmt: skip
            p.set(offset, value)
        self.context = lib.llama_init_from_model(self.model, p)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.size = lib.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        out = (ctypes.c_int32 * (len(raw) + 8))()
        n = self.lib.llama_tokenize(self.vocab, raw, len(raw), out, len(out), False, True)
        return list(out[:n])

    def __call__(self, tokens: list[int]) -> np.ndarray:
        """float32 [tokens, vocab]."""
        n = len(tokens)
        one = (ctypes.c_int32 * 1)(0)
        ints = ctypes.POINTER(ctypes.c_int32)
        batch = _Batch(
            n, (ctypes.c_int32 * n)(*tokens), None, (ctypes.c_int32 * n)(*range(n)),
            (ctypes.c_int32 * n)(*[1] * n),
            (ints * n)(*[ctypes.cast(one, ints)] * n),
            (ctypes.c_int8 * n)(*[1] * n),
        )  # fmt: skip
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        status = self.lib.llama_decode(self.context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        out = self.lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(out, (n, self.size)).copy()


@contextlib.contextmanager
def server(path: Path, mtp: int = 0, context: int = 4096, exact: bool = False) -> Iterator[str]:
    """llama.cpp's server in this process; yields its address. exact: float32 cache."""
    import xllamacpp as x

    p = x.CommonParams()
    p.model.path = str(path)
    p.n_ctx, p.n_parallel, p.port, p.warmup = context, 1, 0, False
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 2
    p.verbosity = -1
    p.use_jinja, p.endpoint_metrics = True, True
    if exact:
        p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if mtp:
        p.speculative.types = [x.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
        p.load_mtp = True
        p.speculative.draft.n_max = mtp
    running = x.Server(p)
    try:
        yield running.listening_address
    finally:
        del running


def post(address: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def chat(address: str, content: str, **options: Any) -> dict[str, Any]:
    """One user turn, greedy unless told otherwise; the assistant's message and the timings."""
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, **options}
    reply = post(address, "/v1/chat/completions", body)
    return {"message": reply["choices"][0]["message"], "timings": reply.get("timings", {})}
