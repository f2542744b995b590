"""Child process of `dry_run`: lays a model out in the engine, without memory, as often as asked.

Usage: python -m moestro.engine.llama_cpp.dry_run_child, with JSON lines on stdin. The first names
the model and the devices, each other line is a question; each is answered by one report.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from typing import Any

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.backend_check import check_backend_structs
from moestro.engine.llama_cpp.binding import (
    FLASH_ATTENTION,
    LOAD_MODE_NONE,
    ContextParams,
    LogCallback,
    ModelParams,
)
from moestro.engine.llama_cpp.breakdown import Share, memory_breakdown
from moestro.engine.llama_cpp.imaginary import Imaginary
from moestro.engine.llama_cpp.placement import place
from moestro.engine.llama_cpp.virtual_device import VirtualDevice, VirtualDevices
from moestro.errors import EngineMismatch

_CPU, _GPU, _IGPU = 0, 1, 2  # enum ggml_backend_dev_type
_WARNING = 3  # GGML_LOG_LEVEL_WARN
_CONTINUED = 5  # GGML_LOG_LEVEL_CONT
_CONTEXT_MTP = 1  # LLAMA_CONTEXT_TYPE_MTP
_DRAFT_CANDIDATES = 10  # top-k of the sampler that the engine attaches to a draft context
_GRAPH = re.compile(rb"graph.*: nodes = (\d+)(?: / \d+)?, splits = (\d+)")
_EXPECTED = (b"has unused tensor", b"dummy tokens")  # warnings that say nothing in a dry run
_NO_FLASH = b"Flash Attention not supported"


class _Log:
    """Passes warnings and errors on to stderr and remembers what the graphs look like."""

    def __init__(self) -> None:
        self.graphs: list[tuple[int, int]] = []
        self.flash_refused = False
        self._passing = False
        self.callback = LogCallback(self._line)

    def _line(self, level: int, text: bytes, _data: object) -> None:
        if level != _CONTINUED:
            self._passing = level >= _WARNING and not any(word in text for word in _EXPECTED)
        if self._passing:
            sys.stderr.buffer.write(text)
        if (found := _GRAPH.search(text)) is not None:
            self.graphs.append((int(found[1]), int(found[2])))
        elif _NO_FLASH in text:
            self.flash_refused = True


class _Session:
    def __init__(
        self, library: ctypes.CDLL, log: _Log, imaginary: Imaginary, start: dict[str, Any]
    ) -> None:
        self.library = library
        self.log = log
        self.imaginary = imaginary
        self.path = os.fsencode(start["model"])
        self.devices: list[int] | None = None
        if start["devices"] is not None:
            wanted = tuple(VirtualDevice(**device) for device in start["devices"])
            self.virtual = VirtualDevices(library, wanted, self.imaginary)
            self.devices = self.virtual.addresses
        self.names = self._device_names()
        self.key: object = None
        self.model: int | None = None
        self.keep: list[object] = []

    def _device_names(self) -> dict[int, str]:
        library = self.library
        addresses = self.devices
        if addresses is None:
            every = range(library.ggml_backend_dev_count())
            found = [library.ggml_backend_dev_get(index) for index in every]
            kinds = [library.ggml_backend_dev_type(device) for device in found]
            addresses = [d for d, kind in zip(found, kinds, strict=True) if kind == _GPU] or [
                d for d, kind in zip(found, kinds, strict=True) if kind == _IGPU
            ]
        return {address: f"GPU{number}" for number, address in enumerate(addresses)}

    def load(self, asked: dict[str, Any]) -> int | None:
        about = ("gpu_layers", "tensor_split", "host_tensors", "repack")
        key = [*(asked[name] for name in about), asked["mtp_depth"] > 0]
        if self.model is not None and key == self.key:
            return self.model
        if self.model is not None:
            self.library.llama_model_free(self.model)
        self.model = self.library.llama_model_load_from_file(self.path, self._model_params(asked))
        self.key = key
        return self.model

    def _model_params(self, asked: dict[str, Any]) -> ModelParams:
        params: ModelParams = self.library.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = LOAD_MODE_NONE
        params.load_mtp = asked["mtp_depth"] > 0
        params.use_extra_bufts = asked["repack"]
        self.keep.clear()
        if self.devices is not None:
            addresses = (ctypes.c_void_p * (len(self.devices) + 1))(*self.devices)
            self.keep.append(addresses)
            params.devices = ctypes.addressof(addresses)
        self.keep += place(
            self.library,
            params,
            gpu_layers=asked["gpu_layers"],
            tensor_split=asked["tensor_split"],
            host_tensors=asked["host_tensors"],
        )
        return params

    def answer(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What `asked` takes, or None where the engine refuses; its log says why."""
        self.log.graphs.clear()
        self.log.flash_refused = False
        model = self.load(asked)
        if not model:
            return None
        params = self._context_params(asked)
        trunk = self.library.llama_init_from_model(model, params)
        if not trunk:
            return None
        answer: dict[str, Any] = {"draft": None}
        if asked["mtp_depth"] > 0:
            answer["draft"] = self._draft(model, trunk, params, asked)
            if answer["draft"] is None:
                self.library.llama_free(trunk)
                return None
        answer["trunk"] = self._shares(trunk)
        answer["context"] = self.library.llama_n_ctx(trunk)
        answer["flash_attention"] = asked["flash_attention"] != "off" and not self.log.flash_refused
        graphs = self.log.graphs
        answer["graph"] = graphs[0] if graphs else None
        self.library.llama_free(trunk)
        return answer

    def counts(self) -> dict[str, Any] | None:
        """Sums over the tensors of the file, and its shape."""
        library = self.library
        params = library.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = LOAD_MODE_NONE
        params.n_gpu_layers = 0
        model = library.llama_model_load_from_file(self.path, params)
        if not model:
            return None
        description = ctypes.create_string_buffer(256)
        library.llama_model_desc(model, description, len(description))
        return {
            "size_bytes": library.llama_model_size(model),
            "parameters": library.llama_model_n_params(model),
            "description": description.value.decode(errors="replace"),
            "layers": library.llama_model_n_layer(model),
            "mtp_layers": library.llama_model_n_layer_nextn(model),
            "context_length": library.llama_model_n_ctx_train(model),
            "embedding_length": library.llama_model_n_embd(model),
        }

    def _context_params(self, asked: dict[str, Any]) -> ContextParams:
        """As `common_context_params_to_llama` makes them of the server's parameters."""
        params: ContextParams = self.library.llama_context_default_params()
        params.n_ctx = asked["context"]
        params.n_batch = asked["batch"]
        params.n_ubatch = asked["ubatch"]
        params.n_seq_max = asked["parallel"]
        params.n_rs_seq = asked["mtp_depth"]
        params.n_outputs_max = asked["outputs"]
        params.n_outputs_max_per_seq = min(asked["batch"], 1 + asked["drafts"])
        params.type_k = asked["type_k"]
        params.type_v = asked["type_v"]
        params.flash_attn_type = FLASH_ATTENTION[asked["flash_attention"]]
        params.kv_unified = asked["unified"]
        params.offload_kqv = not asked["cache_on_host"]
        params.moe_cache_size = asked["expert_cache_bytes"]
        params.swa_full = False
        return params

    def _draft(
        self, model: int, trunk: int, params: ContextParams, asked: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        """The second context, which drafts with the MTP block; both contexts as speculation leaves
        them: `common_speculative_init_result` and `common_speculative_impl_draft_mtp`."""
        library = self.library
        params.ctx_type = _CONTEXT_MTP
        params.n_ctx = library.llama_n_ctx(trunk)
        params.n_rs_seq = 0
        params.n_outputs_max = asked["parallel"]
        params.n_outputs_max_per_seq = 1
        params.type_k = params.type_v = asked["draft_type"]
        params.moe_cache_size = 0
        params.ctx_other = trunk
        draft = library.llama_init_from_model(model, params)
        if not draft:
            return None
        samplers = []
        for sequence in range(asked["parallel"]):
            chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
            top = library.llama_sampler_init_top_k(_DRAFT_CANDIDATES)
            library.llama_sampler_chain_add(chain, top)
            library.llama_set_sampler(draft, sequence, chain)
            samplers.append(chain)
        hand_over, reserve = _cpp_functions(library)
        hand_over(trunk, True, False)
        hand_over(draft, True, True)
        self.log.graphs.clear()
        reserve(trunk)
        reserve(draft)
        shares = self._shares(draft)
        library.llama_free(draft)
        for chain in samplers:
            library.llama_sampler_free(chain)
        return shares

    def _shares(self, context: int) -> list[dict[str, Any]]:
        return [self._share(share) for share in memory_breakdown(self.library, context)]

    def _share(self, share: Share) -> dict[str, Any]:
        library = self.library
        kind = share.buffer_type
        device = "CPU"
        host = library.ggml_backend_buft_is_host(kind)
        if not host:
            device = self.names.get(library.ggml_backend_buft_get_device(kind), device)
        return {
            "device": device,
            "buffer": library.ggml_backend_buft_name(kind).decode(errors="replace"),
            "own_layout": device == "CPU" and not host,
            "weights_bytes": share.weights_bytes,
            "cache_bytes": share.context_bytes,
            "compute_bytes": share.compute_bytes,
        }


def _cpp_functions(library: ctypes.CDLL) -> tuple[Any, Any]:
    """`llama_set_embeddings_nextn` and `llama_context::sched_reserve`, which C does not have."""
    try:
        hand_over = library._Z26llama_set_embeddings_nextnP13llama_contextbb
        reserve = library._ZN13llama_context13sched_reserveEv
    except AttributeError as error:
        raise EngineMismatch(
            "The inference engine does not export what a dry run with MTP needs.",
            hint="Plan without MTP, or reinstall the engine that belongs to this version.",
        ) from error
    hand_over.restype = None
    hand_over.argtypes = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool]
    reserve.restype = None
    reserve.argtypes = [ctypes.c_void_p]
    return hand_over, reserve


def main() -> int:
    report = claim_report_stream()
    try:
        library = open_library()
        return _converse(library, report)
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START


def _converse(library: ctypes.CDLL, report: ReportStream) -> int:
    log = _Log()
    library.llama_log_set(log.callback, None)
    library.llama_backend_init()
    check_backend_structs(library)
    imaginary = Imaginary(library)
    imaginary.replace_host_memory(library)
    session: _Session | None = None
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if session is None:
            session = _Session(library, log, imaginary, message)
            continue
        counting = "counts" in message
        answer = session.counts() if counting else session.answer(message)
        sys.stderr.flush()
        if answer is None:
            report.send("refused")
        else:
            report.send("counts" if counting else "memory", **answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
