"""Has a GPU's memory lost data? Cards without error correction count nothing, and then nothing is
said."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.gpus import gpus_of
from moestro.findings import Finding, Severity


def _run(case: Case) -> Iterator[Finding]:
    for found in gpus_of(case):
        state = found.state
        if state is None or (state.uncorrected is None and state.remap_pending is None):
            continue
        if state.uncorrected:
            yield Finding(
                Severity.FAIL,
                "gpu-memory-errors",
                f"The memory of {found.name} had errors that could not be corrected",
                f"{state.uncorrected:,} since the driver was loaded",
                "Restart the machine; if they come again, have the card replaced. What it computed "
                "since is not to be trusted.",
            )
        if state.remap_pending:
            yield Finding(
                Severity.WARN,
                "gpu-remap-pending",
                f"{found.name} waits for a restart to replace broken rows of its memory",
                "a row remapping is pending",
                "Stop what runs on it, and restart the machine or reset the card: "
                f"sudo nvidia-smi{found.chosen} -r",
            )
        if not state.uncorrected and not state.remap_pending:
            seen = [
                None if state.uncorrected is None else "0 errors that could not be corrected",
                None if state.remap_pending is None else "no row waits to be replaced",
            ]
            yield ok("gpu-errors", f"The memory of {found.name} is sound",
                     "; ".join(filter(None, seen)))  # fmt: skip


CHECK = Check("gpu-errors", "machine", "Is the GPUs' memory sound?", _run)
