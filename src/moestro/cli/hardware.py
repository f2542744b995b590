"""`moestro hardware`: this machine, or one that is not here."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import json_option
from moestro.errors import UsageError
from moestro.findings import Finding, Severity, any_failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moestro.engine.llama_cpp.calibrate import AttentionShape
    from moestro.hardware import Inventory


@click.command(name="hardware")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure memory, disks and the engine's kernels now (two minutes) and keep the figures.",
)
@click.option(
    "--for",
    "model",
    metavar="MODEL",
    help="With --measure: also time the tensor types and attention of this model.",
)
@click.option(
    "--hardware",
    "described",
    metavar="NAME|FILE",
    help="Show a machine that is not here: a name, a line or a TOML file.",
)
@click.option("--list", "listed", is_flag=True, help="The machines known by name.")
@json_option
def command(
    measure: bool, model: str | None, described: str | None, listed: bool, as_json: bool
) -> int:
    """What this machine is, and how fast it really is.

    Bandwidths that were measured before are shown with their date; without them the maker's peaks
    are, where they are known.

    NAME is such as rtx-4090, m2-ultra, or a line: "2 x rtx-4090, 128 GiB DDR5-5600 dual channel,
    PCIe 4.0 x8, 16 cores". What is left out is assumed, and said so.
    """
    if model is not None and not measure:
        raise UsageError(
            "--for says what is to be measured, and nothing is.", hint="Add --measure."
        )
    if listed:
        if measure or described is not None:
            raise UsageError("--list shows the catalogue and nothing else.")
        return _list(as_json)
    if measure and described is not None:
        raise UsageError(
            "A machine that is not here cannot be measured.",
            hint="Leave out --measure, or --hardware to measure this machine.",
        )
    inventory = _inventory(described)
    if measure:
        inventory = measure_this(inventory, model)
    if as_json:
        click.echo(json.dumps(inventory.to_json(), ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_hardware import show_inventory

        show_inventory(inventory, Console(highlight=False))
    return 1 if any_failed(inventory.findings) else 0


def measure_this(inventory: Inventory, model: str | None = None) -> Inventory:
    """Measures this machine, keeps the figures, and returns the inventory with them. What a model
    needs beyond the usual is measured too, if one is named.

    Raises:
        MoestroError: the model cannot be read, the engine cannot be used, or the figures cannot be
            kept.
    """
    from moestro.hardware.measure.host import measure_host
    from moestro.hardware.measured import keep, lay_over
    from moestro.hardware.this_machine import disks_here

    types, attention = _asked(inventory, model)
    for part in measure_host(inventory, disks_here(), _say):
        if isinstance(part, Finding):
            inventory = inventory.with_findings(part)
        else:
            keep(inventory, part)
            inventory = lay_over(inventory, part)
    return inventory.with_findings(*measure_engine(inventory, types, attention))


def _asked(inventory: Inventory, model: str | None) -> tuple[list[str], list[AttentionShape]]:
    """Tensor types and attention to time: the usual ones, then what the model adds to them."""
    from moestro.engine.llama_cpp.calibrate import COMMON_ATTENTION, COMMON_TYPES

    types, attention = list(COMMON_TYPES), list(COMMON_ATTENTION)
    if model is not None:
        from moestro.cli.planning import read_fitting
        from moestro.cli.resolve import resolve
        from moestro.model.ggml_types import BY_NAME
        from moestro.planning import Wishes
        from moestro.planning.planner import CACHE_TYPES
        from moestro.planning.work import attention_shapes, product_types

        spec = read_fitting(resolve(model), inventory, Wishes())
        types += sorted(product_types(spec) & BY_NAME.keys() - {*types})
        for kind in (BY_NAME[name.upper()] for name in CACHE_TYPES):
            shapes = attention_shapes(spec, kind.name, kind.name) - {*attention}
            attention += sorted(
                shape for shape in shapes if not any(n % kind.block_size for n in shape[:2])
            )
    return types, attention


def measure_engine(
    inventory: Inventory, types: Sequence[str], attention: Sequence[AttentionShape]
) -> tuple[Finding, ...]:
    """Times the engine's own kernels on the CPU and on each GPU that it uses, all of it anew, and
    keeps the rates: forecasts are made of them. What was measured before for other types stays. A
    finding names devices whose measurement ended too early to be of use for every model.

    Raises:
        MoestroError: the engine cannot be used, or the rates cannot be kept.
    """
    from moestro.cli.planning import RATES, stored_rates
    from moestro.engine.llama_cpp.calibrate import calibrate
    from moestro.engine.llama_cpp.devices import engine_devices
    from moestro.hardware.store import update
    from moestro.planning.placement import HOST, gpu_name

    found = engine_devices()
    gpus = found.gpus if inventory.gpus else ()
    devices = {HOST: found.cpu} | {gpu_name(index): number for index, number in enumerate(gpus)}
    known = stored_rates(inventory.identity)
    partial = []
    for name, number in devices.items():
        older = known.get(name)
        rates = calibrate(
            inventory.cpu.usable_cores,
            types,
            attention,
            known=older,
            anew=True,
            device=number,
            progress=_say,
        )
        if not rates.has_common:
            partial.append(name)
            if older is not None and older.has_common:
                continue  # whole figures for other threads are worth more than a part of new ones
        entry = {name: rates.to_json()}

        def with_this(stored: Any, entry: dict[str, Any] = entry) -> dict[str, Any]:
            return {**(stored or {}), **entry}

        update(RATES, inventory.identity, with_this)
    return (_partial(partial),) if partial else ()


def _partial(devices: list[str]) -> Finding:
    return Finding(
        Severity.WARN,
        "measurement-incomplete",
        "The engine's kernels were measured in part only: the measurement ended early",
        ", ".join(devices),
        "Run moestro hardware --measure again and let it end.",
    )


def _say(what: str) -> None:
    print(f"measuring {what} …", file=sys.stderr, flush=True)


def _inventory(described: str | None) -> Inventory:
    from moestro.hardware import hardware_named, this_inventory

    return this_inventory() if described is None else hardware_named(described)


def _list(as_json: bool) -> int:
    from moestro.hardware.catalogue import catalogue

    rows = list(catalogue().values())
    if as_json:
        click.echo(json.dumps({"hardware": [_row(row) for row in rows]}, ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_hardware import show_catalogue

        show_catalogue(rows, Console(highlight=False))
    return 0


def _row(row: Any) -> dict[str, Any]:
    """One row of `hardware --list --json`."""
    from moestro.hardware.catalogue import MachineRow

    whole = isinstance(row, MachineRow)
    bandwidth = row.gpu.bandwidth
    return {
        "key": row.key,
        "name": row.name,
        "kind": "machine" if whole else "gpu",
        "memory_bytes": row.memory_bytes if whole else row.gpu.memory_bytes,
        "memory_from": row.memory_from,
        "bandwidth_bytes_per_second": bandwidth.bytes_per_second if bandwidth else None,
        "tflops_f16": row.gpu.tflops_f16,
        "aliases": list(row.aliases),
        "source": row.source,
    }
