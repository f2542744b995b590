"""Measures this machine with the engine's own kernels, in a child process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from moestro.engine.child import (
    child_command,
    child_environment,
    failure_of,
    parse_report,
)
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.errors import EngineError
from moestro.planning.rates import (
    AttentionRates,
    Curve,
    KernelRates,
    SmallRates,
    attention_rates,
    type_rates,
)

COMMON_TYPES = ("F32", "F16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "MXFP4")
"""What most files are made of; `calibrate` takes any other type too."""

AttentionShape = tuple[int, int, str, str, int]
"""Width of key and value of one head, tensor types of both caches, heads in the cache."""

COMMON_ATTENTION: tuple[AttentionShape, ...] = (
    (64, 64, "F16", "F16", 4),
    (64, 64, "F16", "F16", 8),
    (128, 128, "F16", "F16", 4),
    (128, 128, "F16", "F16", 8),
    (256, 256, "F16", "F16", 2),
    (576, 512, "F16", "F16", 1),
)

Progress = Callable[[str], None]

PATIENCE_SECONDS = 20.0
ROUNDS = 3


def calibrate(
    threads: int,
    types: Sequence[str] = COMMON_TYPES,
    attention: Sequence[AttentionShape] = COMMON_ATTENTION,
    *,
    known: KernelRates | None = None,
    anew: bool = False,
    device: int = 0,
    patience_seconds: float = PATIENCE_SECONDS,
    rounds: int = ROUNDS,
    quick: bool = False,
    progress: Progress = lambda _: None,
) -> KernelRates:
    """Measures `types` and `attention` and returns them merged into `known`.

    What every model needs is measured too where `known` lacks it, and always with `anew`. An
    interrupt (Ctrl-C) ends the measurement and keeps what it had learned; without `known` that may
    be less than every model needs (`KernelRates.has_common`). On a disturbed machine
    up to `patience_seconds` more are spent on waiting for quiet moments. `rounds` are made of each
    figure, and as many again where it was disturbed. `quick` only shows that everything works.
    `progress` is told what is about to be measured. Figures of another engine release or number of
    threads are not kept.

    Raises:
        EngineError: the engine cannot be used, or its process crashed before the first result.
        KeyboardInterrupt: there was an interrupt before the first result, and nothing is `known`.
    """
    if known is not None and (known.engine_version, known.threads) != (EXPECTED_VERSION, threads):
        known = None
    request = {
        "threads": threads,
        "device": device,
        "types": list(types),
        "attention": [list(shape) for shape in attention],
        "common": anew or known is None or not known.has_common,
        "patience_seconds": patience_seconds,
        "rounds": rounds,
        "quick": quick,
    }
    process = subprocess.Popen(
        child_command("llama_cpp.calibration_child", json.dumps(request)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(os.environ),
        start_new_session=True,  # Ctrl-C is for us: we keep what there is, then end the child
    )
    found = _Found(threads)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            report = parse_report(line)
            if report is not None:
                found.take(report, progress)
        if process.wait() != 0:
            progress("no more: the engine's process ended early, and what it measured is kept")
    except KeyboardInterrupt:  # what was measured is kept
        if known is None and found.rates() is None:
            raise
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    rates = found.rates()
    if rates is None:
        if known is not None:
            return known
        raise EngineError(
            "The engine's process ended before it had measured anything.",
            hint="Try `moestro run demo` to see whether the engine works here at all.",
        )
    return known.merged(rates) if known is not None else rates


class _Found:
    """Reports of the child, as they come."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._fields: dict[str, Any] = {"types": {}}
        self._attention: dict[AttentionShape, AttentionRates] = {}
        self._device: dict[str, str] | None = None

    def take(self, report: dict[str, Any], progress: Progress) -> None:
        event = report.pop("event")
        if event == "failed":
            raise failure_of(report)
        if event == "begin":
            progress(report["what"])
        elif event == "device":
            self._device = report
        elif event == "common":
            self._fields |= {
                "knee": Curve.of(report["knee"]),
                "sampling": Curve.of(report["sampling"]),
                "step": report["step"],
                "small": {name: SmallRates(**entry) for name, entry in report["small"].items()},
                "recurrent": {
                    name: Curve.of(points) for name, points in report["recurrent"].items()
                },
            }
        elif event == "type":
            self._fields["types"][report["name"]] = type_rates(report)
        elif event == "attention":
            rates = attention_rates(report)
            key = rates.key, rates.value, rates.type_k, rates.type_v, rates.kv_heads
            self._attention[key] = rates
        elif event == "skipped":
            progress(f"{report['name']} left out: {report['why']}")
        elif event in ("load", "done"):  # so far, and on the whole
            self._fields |= {"load": report["load"], "spread": report["spread"] or 0.1}

    def rates(self) -> KernelRates | None:
        if self._device is None:
            return None
        empty = KernelRates(
            device=self._device["name"],
            description=self._device["description"],
            threads=self._threads,
            engine_version=EXPECTED_VERSION,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return replace(empty, **self._fields, attention=tuple(self._attention.values()))
