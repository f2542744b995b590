"""The engine's own opinion of a model file, from its header alone.

`no_alloc` with plain reads makes llama.cpp read metadata and build the tensor list without loading
a byte of weights, and plan its buffers without taking them. So a sparse file that holds only the
header does as well as the model itself, and GPUs that are not there as well as real ones
(`virtual_device`).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from moestro.closing import Closing
from moestro.engine.child import (
    FAILED_START,
    child_command,
    child_environment,
    failure_of,
    parse_report,
)
from moestro.engine.llama_cpp import derived
from moestro.engine.llama_cpp.dry_run_process import DryRunProcess
from moestro.engine.llama_cpp.refusal import answered, lines_of, refusal, send
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.errors import EngineError, EngineStartFailed
from moestro.model import ModelSpec, read_model
from moestro.model.ggml_types import GGML_TYPES
from moestro.model.skeleton import write_skeleton
from moestro.planning.engine_memory import DeviceMemory, EngineMemory
from moestro.planning.placement import expert_blocks
from moestro.planning.settings import INT_MAX, Settings

TIMEOUT_SECONDS = 60.0
_TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}
_DRAFT_CACHE_TYPE = "F16"  # the engine's default for a draft context, whatever the trunk's is


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """Sums over every tensor in the file (MTP included), and shape facts as the engine has them.

    `size_bytes` is tensor data without padding. `layers` counts trunk blocks, `mtp_layers` the
    rest of `block_count`.
    """

    size_bytes: int
    parameters: int
    description: str
    layers: int
    mtp_layers: int
    context_length: int
    embedding_length: int


class DryRun(Closing):
    """A child process that answers one question after the other about one model.

    `devices` are the GPUs: None takes those that the engine finds here, () none at all. `process`
    is one that was started before the model was known; this object closes it.
    """

    def __init__(
        self,
        model: Path | ModelSpec,
        devices: Sequence[VirtualDevice] | None = None,
        *,
        process: DryRunProcess | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._spec = read_model(model) if isinstance(model, Path) else model
        self._name = Path(self._spec.files[0].location).name
        self._devices = None if devices is None else tuple(devices)
        self._timeout_seconds = timeout_seconds
        self._process = process
        self._told_model = False

    def __enter__(self) -> Self:
        with contextlib.suppress(EngineStartFailed):  # said when the first question is asked
            self._start()
        return self

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process, self._told_model = None, False

    def memory(
        self,
        settings: Settings,
        *,
        every_token_outputs: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> EngineMemory:
        """What the engine's server would take with `settings`. `meanwhile` is called while the
        engine thinks.

        `every_token_outputs` plans logits for every token of a batch, as other programs of the
        engine do; the server wants one row for each stream and draft.

        Raises:
            EngineStartFailed: it refuses the model or the settings, crashes, or takes too long.
            EngineMismatch: another engine build is installed.
        """
        if settings.context * settings.parallel > INT_MAX:
            raise EngineStartFailed(
                f"The engine counts at most {INT_MAX:,} tokens in its cache, not "
                f"{settings.context * settings.parallel:,}.",
                hint="Lower --context or --parallel.",
            )
        if not self._told_model:
            self._start()
        question = self._question(settings)
        if every_token_outputs:
            question["outputs"] = question["batch"]
        answer = self._ask(question, meanwhile)
        graph = answer["graph"] or (None, None)
        return EngineMemory(
            devices=_devices(answer["trunk"]),
            draft=_devices(answer["draft"] or [], with_weights=False),
            context=answer["context"],
            flash_attention=answer["flash_attention"],
            graph_nodes=graph[0],
            graph_splits=graph[1],
        )

    def _start(self) -> None:
        if self._process is None:
            self._process = DryRunProcess()
        try:
            path = write_skeleton(self._spec, self._process.folder / "model.gguf")
        except OSError as error:
            raise EngineStartFailed(
                f"The engine could not be given the header of {self._name}: {error.strerror}.",
                hint="It needs a few MB in the folder for temporary files.",
            ) from error
        devices = self._devices and [asdict(device) for device in self._devices]
        send(
            self._process.process,
            {"model": str(path), "devices": None if devices is None else list(devices)},
        )
        self._told_model = True

    def _question(self, settings: Settings) -> dict[str, Any]:
        blocks = expert_blocks(self._spec)[: settings.cpu_expert_layers]
        accelerated = self._devices is None or len(self._devices) > 0
        batch = settings.tokens_at_once(accelerated=accelerated)
        return {
            "context": settings.context * settings.parallel,
            "parallel": settings.parallel,
            "batch": batch,
            "ubatch": settings.ubatch,
            "outputs": min(batch, settings.outputs),
            "drafts": settings.drafts,
            "repack": settings.repack,
            "unified": settings.unified,
            "type_k": _TYPE_NUMBERS[settings.cache_type_k.upper()],
            "type_v": _TYPE_NUMBERS[settings.cache_type_v.upper()],
            "draft_type": _TYPE_NUMBERS[_DRAFT_CACHE_TYPE],
            "flash_attention": settings.flash_attention,
            "mtp_depth": settings.mtp_depth,
            "gpu_layers": settings.gpu_layers,
            "tensor_split": settings.tensor_split,
            "host_tensors": derived.host_tensors(blocks),
            "cache_on_host": settings.cache_on_host,
            "expert_cache_bytes": settings.expert_cache_bytes,
        }

    def _ask(self, question: dict[str, Any], meanwhile: Callable[[], None]) -> dict[str, Any]:
        assert self._process is not None
        process, log = self._process.process, self._process.log
        said_before = log.seek(0, os.SEEK_END)
        send(process, question)
        meanwhile()

        def refused(exit_code: int) -> EngineError:
            log.seek(said_before)
            return refusal(lines_of(log.read()), exit_code, self._name)

        return answered(process, self._read_line(), refused)

    def _read_line(self) -> bytes:
        """The next report; empty if the child has ended."""
        assert self._process is not None
        stream = self._process.process.stdout
        assert stream is not None
        deadline = time.monotonic() + self._timeout_seconds
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    self.close()
                    raise EngineStartFailed(
                        f"The engine did not finish planning {self._name} within "
                        f"{self._timeout_seconds:g} s.",
                        hint="The machine may be overloaded, or the model's header absurd.",
                    )
                piece = os.read(stream.fileno(), 1 << 16)
                if not piece:
                    break
                line += piece
        return line


def engine_counts(model: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> EngineCounts:
    """Asks the engine, in a child process, what it sees in `model` (first part of a split file).

    Raises:
        EngineStartFailed: the engine refuses the file, crashes on it, or takes too long.
        EngineMismatch: another engine build is installed.
    """
    asked = ({"model": str(model), "devices": []}, {"counts": True})
    try:
        done = subprocess.run(
            child_command("llama_cpp.dry_run_child"),
            input=b"".join(json.dumps(message).encode() + b"\n" for message in asked),
            capture_output=True,
            env=child_environment(os.environ),
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineStartFailed(
            f"The engine did not finish reading {model.name} within {timeout_seconds:g} s.",
            hint="The file's storage may be stuck, or its header claims absurd sizes.",
        ) from error
    for line in done.stdout.splitlines():
        report = parse_report(line)
        event = report.pop("event") if report is not None else None
        if report is not None and event == "counts" and done.returncode == 0:
            return EngineCounts(**report)
        if report is not None and event == "failed":
            raise failure_of(report)
    raise refusal(lines_of(done.stderr), done.returncode or FAILED_START, model.name)


def memory_of(
    model: Path | ModelSpec,
    settings: Settings,
    devices: Sequence[VirtualDevice] | None = None,
) -> EngineMemory:
    """One answer of a `DryRun`.

    Raises:
        EngineStartFailed, EngineMismatch: see `DryRun.memory`.
    """
    with DryRun(model, devices) as run:
        return run.memory(settings)


def _devices(
    shares: Sequence[dict[str, Any]], *, with_weights: bool = True
) -> tuple[DeviceMemory, ...]:
    """Shares of buffer types added up by device, the host first."""
    names = sorted({share["device"] for share in shares})
    return tuple(_device(name, shares, with_weights=with_weights) for name in names)


def _device(name: str, shares: Sequence[dict[str, Any]], *, with_weights: bool) -> DeviceMemory:
    own = [share for share in shares if share["device"] == name]
    weights = sum(share["weights_bytes"] for share in own)
    repacked = sum(share["weights_bytes"] for share in own if share["own_layout"])
    return DeviceMemory(
        device=name,
        weights_bytes=weights if with_weights else 0,
        cache_bytes=sum(share["cache_bytes"] for share in own),
        compute_bytes=sum(share["compute_bytes"] for share in own),
        weights_repacked_bytes=repacked if with_weights else 0,
    )


__all__ = ["DeviceMemory", "DryRun", "EngineCounts", "EngineMemory", "VirtualDevice",
           "engine_counts", "memory_of"]  # fmt: skip
