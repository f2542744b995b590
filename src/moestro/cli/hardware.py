"""`moestro hardware`: this machine, or one that is not here."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import json_option
from moestro.errors import UsageError
from moestro.findings import Finding, any_failed

if TYPE_CHECKING:
    from moestro.hardware import Inventory


@click.command(name="hardware")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure memory, disks and the engine's kernels now (two minutes) and keep the figures.",
)
@click.option(
    "--hardware",
    "described",
    metavar="NAME|FILE",
    help="Show a machine that is not here: a name, a line or a TOML file.",
)
@click.option("--list", "listed", is_flag=True, help="The machines known by name.")
@json_option
def command(measure: bool, described: str | None, listed: bool, as_json: bool) -> int:
    """What this machine is, and how fast it really is.

    Bandwidths that were measured before are shown with their date; without them the maker's peaks
    are, where they are known.

    NAME is such as rtx-4090, m2-ultra, or a line: "2 x rtx-4090, 128 GiB DDR5-5600 dual channel,
    PCIe 4.0 x8, 16 cores". What is left out is assumed, and said so.
    """
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
        inventory = measure_this(inventory)
    if as_json:
        click.echo(json.dumps(inventory.to_json(), ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_hardware import show_inventory

        show_inventory(inventory, Console(highlight=False))
    return 1 if any_failed(inventory.findings) else 0


def measure_this(inventory: Inventory) -> Inventory:
    """Measures this machine, keeps the figures, and returns the inventory with them."""
    from moestro.hardware.measure.host import measure_host
    from moestro.hardware.measured import keep, lay_over
    from moestro.hardware.this_machine import disks_here

    for part in measure_host(inventory, disks_here(), _say):
        if isinstance(part, Finding):
            inventory = inventory.with_findings(part)
        else:
            keep(inventory, part)
            inventory = lay_over(inventory, part)
    measure_engine(inventory)
    return inventory


def measure_engine(inventory: Inventory) -> None:
    """Times the engine's own kernels on the CPU and on each GPU that it sees, and keeps the rates:
    forecasts are made of them.

    Raises:
        MoestroError: the engine cannot be used, or the rates cannot be kept.
    """
    from moestro.cli.planning import RATES, stored_rates
    from moestro.engine.llama_cpp.calibrate import calibrate
    from moestro.engine.llama_cpp.devices import engine_gpu_count
    from moestro.hardware.store import update
    from moestro.planning.placement import HOST, gpu_name

    gpus = engine_gpu_count() if inventory.gpus else 0
    # The engine lists its GPUs first and the CPU last.
    devices = {HOST: gpus} | {gpu_name(number): number for number in range(gpus)}
    known = stored_rates(inventory.identity)
    for name, number in devices.items():
        rates = calibrate(
            inventory.cpu.usable_cores, known=known.get(name), device=number, progress=_say
        )
        entry = {name: rates.to_json()}

        def with_this(stored: Any, entry: dict[str, Any] = entry) -> dict[str, Any]:
            return {**(stored or {}), **entry}

        update(RATES, inventory.identity, with_this)


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
