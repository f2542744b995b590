"""Bandwidths measured on this machine: kept in the store, and laid over the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moestro.errors import HardwareError
from moestro.findings import Finding, Severity
from moestro.hardware.disk import Disk
from moestro.hardware.gpu import Gpu, Link
from moestro.hardware.inventory import Inventory
from moestro.hardware.measure.figure import Figure, figure_of
from moestro.hardware.store import load, update

KIND = "bandwidth"


@dataclass(frozen=True, slots=True)
class Measurements:
    """`disks` by `disk_key`, `links` (host to device) by `gpu_key`."""

    memory: tuple[Figure, ...] = ()
    disks: Mapping[str, tuple[Figure, ...]] = field(default_factory=dict)
    links: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "memory": [figure.to_json() for figure in self.memory],
            "disks": {
                key: [figure.to_json() for figure in figures] for key, figures in self.disks.items()
            },
            "links": {key: figure.to_json() for key, figure in self.links.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Measurements:
        """What `to_json` wrote.

        Raises:
            HardwareError: it is something else.
        """
        try:
            return cls(
                memory=_figures(value["memory"]),
                disks={key: _figures(figures) for key, figures in value["disks"].items()},
                links={key: Figure.from_json(figure) for key, figure in value["links"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise HardwareError("A stored measurement is damaged.") from error

    def over(self, older: Measurements) -> Measurements:
        """These, and from `older` what was not measured again."""
        return Measurements(
            self.memory or older.memory,
            {**older.disks, **self.disks},
            {**older.links, **self.links},
        )


def with_measured(inventory: Inventory) -> Inventory:
    """The inventory with what was measured on this machine in place of what makers state."""
    stored = load(KIND, inventory.identity)
    if stored.finding is not None:
        return inventory.with_findings(stored.finding)
    if stored.payload is None:
        return inventory
    try:
        measured = Measurements.from_json(stored.payload)
    except HardwareError as error:
        return inventory.with_findings(_damaged(error))
    return lay_over(inventory, measured)


def lay_over(inventory: Inventory, measured: Measurements) -> Inventory:
    memory = inventory.memory
    if read := main_figure(measured.memory, "memory-read"):
        memory = replace(memory, bandwidth=read.bandwidth())
    return replace(
        inventory,
        memory=memory,
        disks=tuple(_disk(disk, measured.disks) for disk in inventory.disks),
        gpus=tuple(
            _gpu(gpu, measured.links.get(gpu_key(index, gpu)))
            for index, gpu in enumerate(inventory.gpus)
        ),
    )


def keep(inventory: Inventory, measured: Measurements) -> None:
    """Stores what was measured; what was not measured this time stays.

    Raises:
        HardwareError: the store cannot be written.
    """

    def change(payload: Any) -> Any:
        try:
            older = Measurements.from_json(payload) if payload is not None else Measurements()
        except HardwareError:  # damaged: this is its replacement
            older = Measurements()
        return measured.over(older).to_json()

    update(KIND, inventory.identity, change)


def host_to_device(
    inventory: Inventory, index: int, rates: Sequence[float], size_bytes: int, how: str
) -> Measurements:
    """What an engine measured of the way from the host's memory to GPU `index`, ready to `keep`.

    `rates` are bytes per second, one a repetition, `size_bytes` is what each copied. Only an engine
    with a GPU build can copy there, so that the engine's room measures and this one keeps.
    """
    figure = figure_of("host-to-device", rates, threads=1, size_bytes=size_bytes, how=how)
    return Measurements(links={gpu_key(index, inventory.gpus[index]): figure})


def main_figure(figures: Iterable[Figure], what: str) -> Figure | None:
    """The figure of this kind with the most threads."""
    return max(
        (figure for figure in figures if figure.what == what),
        key=lambda figure: figure.threads,
        default=None,
    )


def disk_key(disk: Disk) -> str:
    return f"{disk.name} {disk.mount}"


def gpu_key(index: int, gpu: Gpu) -> str:
    return f"{index} {gpu.name}"


def _disk(disk: Disk, measured: Mapping[str, tuple[Figure, ...]]) -> Disk:
    figures = measured.get(disk_key(disk), ())
    sequential = main_figure(figures, "disk-sequential")
    random = main_figure(figures, "disk-random")
    return replace(
        disk,
        sequential=sequential.bandwidth() if sequential else disk.sequential,
        random=random.bandwidth() if random else disk.random,
    )


def _gpu(gpu: Gpu, figure: Figure | None) -> Gpu:
    if figure is None:
        return gpu
    return replace(gpu, link=replace(gpu.link or Link(), bandwidth=figure.bandwidth()))


def _figures(values: Any) -> tuple[Figure, ...]:
    return tuple(Figure.from_json(value) for value in values)


def _damaged(error: HardwareError) -> Finding:
    return Finding(
        Severity.WARN,
        "stored-measurement-unreadable",
        "A stored measurement cannot be read and is left out",
        error.sentence,
        "moestro hardware --measure writes a new one.",
    )
