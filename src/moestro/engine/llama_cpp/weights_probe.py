"""Reads every byte of a model's weights once, in a child process.

Are its blocks sound, what are its files' hashes, and a few numbers for each tensor and expert that
stand for them (see `row_samples`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from moestro.engine.child import (
    child_command,
    child_environment,
    failure_of,
    parse_report,
)
from moestro.engine.llama_cpp.row_samples import MAX_UNITS_OF_MODEL, RowSample, row_sample
from moestro.engine.reasons import signal_of
from moestro.errors import (
    EngineError,
    EngineStartFailed,
    ModelCorrupt,
    ModelTruncated,
    ModelUnsupported,
)
from moestro.model.gguf import GgufHeader, read_gguf_header
from moestro.model.source import FileSource
from moestro.model.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
"""Told (bytes read, bytes in all), several times a second."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The products are small: more threads would only wait for each other, and the hash needs one."""

NAME_OF_RESULTS = "probe.npz"


@dataclass(frozen=True, slots=True)
class ProbedTensor:
    """`bad_rows` hold a block with NaN or Inf, the first of them `first_bad_row`; of a badly
    damaged tensor not all are counted. `norms` f32 [units]: the length of what was sampled, NaN
    where it was not finite. `sketch` f16 [units, width]: S of the unit, divided by its norm."""

    name: str
    type: str
    shape: tuple[int, ...]
    bad_rows: int
    first_bad_row: int | None
    norms: NDArray[np.float32]
    sketch: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class WeightsProbe:
    """`digests`: sha256 of each file, as hubs publish it."""

    digests: tuple[str, ...]
    tensors: tuple[ProbedTensor, ...]


def local_headers(spec: ModelSpec) -> tuple[tuple[Path, GgufHeader], ...]:
    """The files of `spec`, read again: their headers say where everything lies.

    Raises:
        ModelError: not GGUF files of this machine, or no longer those that `spec` was read from.
    """
    if spec.format != "gguf":
        raise ModelUnsupported(
            "The weights of a Hugging Face folder cannot be compared yet.",
            hint="Convert it to GGUF (BF16 keeps everything) and take that file.",
        )
    found = []
    for file in spec.files:
        if "://" in file.location:
            raise ModelUnsupported(
                f"{file.location} is not on this machine; its weights have to be read whole.",
                hint="Download it first, or use a .moeref file of it.",
            )
        path = Path(file.location)
        with FileSource(path) as source:
            found.append((path, read_gguf_header(source)))
    names = [tensor.name for _, header in found for tensor in header.tensors]
    if names != [tensor.name for tensor in spec.tensors]:
        raise ModelCorrupt(
            f"{found[0][0].name} was replaced while it was looked at.",
            hint="Try again when nothing writes to it.",
        )
    return tuple(found)


def probe_weights(
    spec: ModelSpec, *, progress: Progress = lambda _done, _all: None
) -> WeightsProbe:
    """Reads the model's files from their first to their last byte.

    Raises:
        ModelError: see `local_headers`; ModelTruncated if a file has become shorter.
        EngineError: the engine cannot be used, or its process ended early.
    """
    files = local_headers(spec)
    samples = [row_sample(tensor.name, tensor.type, tensor.shape) for tensor in spec.tensors]
    if sum(sample.units for sample in samples) > MAX_UNITS_OF_MODEL:
        raise ModelUnsupported(
            f"{files[0][0].name} has more experts than can be looked at.",
            hint="The file is newer than this moestro, or was made to harm.",
        )
    with tempfile.TemporaryDirectory(prefix="moestro-") as folder:
        report = _run(_request(files, Path(folder)), Path(folder), files[0][0].name, progress)
        return _collect(spec, samples, report, Path(folder))


def _request(files: Sequence[tuple[Path, GgufHeader]], folder: Path) -> dict[str, Any]:
    return {
        "results": str(folder / NAME_OF_RESULTS),
        "files": [
            {
                "path": str(path),
                "tensors": [
                    [tensor.name, tensor.type.name, tensor.dims, header.data_offset + tensor.offset]
                    for tensor in header.tensors
                ],
            }
            for path, header in files
        ],
    }


def _run(request: dict[str, Any], folder: Path, name: str, progress: Progress) -> dict[str, Any]:
    """The child's last report. Its stdin stays open while it may live: see `orphans`."""
    with contextlib.ExitStack() as things:
        try:
            log = things.enter_context((folder / "log").open("w+b"))
            process = subprocess.Popen(
                child_command("llama_cpp.weights_probe_child"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**_ONE_THREAD, **child_environment(os.environ)},
            )
        except OSError as error:
            raise EngineStartFailed(
                f"The weights of {name} could not be looked at: {error.strerror}.",
                hint="It takes a few MB in the folder for temporary files, and a process.",
            ) from error
        things.callback(_end, process)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what it died of is told below
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            report = parse_report(line)
            if report is None:
                continue
            if report["event"] == "progress":
                progress(report["done_bytes"], report["all_bytes"])
            elif report["event"] == "truncated":
                raise _truncated(report)
            elif report["event"] == "failed":
                raise failure_of(report)
            elif report["event"] == "done":
                return report
        raise _crash(name, process.wait(), log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it holds nothing that would have to be saved
    process.communicate()


def _truncated(report: dict[str, Any]) -> ModelTruncated:
    return ModelTruncated(
        f"{report['path']} is cut off: {report['tensor']} would end at byte {report['end']:,}, "
        f"the file has {report['size_bytes']:,}.",
        hint="The download or copy is incomplete; get the file again.",
    )


def _crash(name: str, exit_code: int, log: BinaryIO) -> EngineError:
    ended_by = signal_of(exit_code)
    how = f"by {ended_by.name}" if ended_by is not None else f"with status {exit_code}"
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return EngineStartFailed(
        f"The process that read the weights of {name} ended early, {how}.",
        hint="If the file is still being written, wait for that; otherwise its disk may have read "
        "errors: copy the file and compare its hash with the source's.",
        log_tail=tuple(lines[-20:]),
    )


def _collect(
    spec: ModelSpec, samples: Sequence[RowSample], report: dict[str, Any], folder: Path
) -> WeightsProbe:
    import numpy as np

    with np.load(folder / NAME_OF_RESULTS, allow_pickle=False) as arrays:
        norms, sketches = arrays["norms"], {32: arrays["narrow"], 64: arrays["wide"]}
    bad = {name: (count, first) for name, count, first in report["bad"]}
    used = dict.fromkeys(sketches, 0)
    begin = 0
    tensors = []
    for tensor, sample in zip(spec.tensors, samples, strict=True):
        count, first = bad.get(tensor.name, (0, None))
        at = used[sample.width]
        tensors.append(
            ProbedTensor(
                name=tensor.name,
                type=tensor.type,
                shape=tensor.shape,
                bad_rows=count,
                first_bad_row=first,
                norms=norms[begin : begin + sample.units],
                sketch=sketches[sample.width][at : at + sample.units],
            )
        )
        begin += sample.units
        used[sample.width] += sample.units
    return WeightsProbe(tuple(report["digests"]), tuple(tensors))
