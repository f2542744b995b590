"""Is the processor too hot? Sensors against their own limits; the kernel's counts since the boot.

A count alone is weak: a package that was slowed for a second last week counts too.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity

_SENSORS = frozenset(("coretemp", "k10temp", "zenpower", "cpu_thermal"))
_ZONES = frozenset(("x86_pkg_temp", "cpu-thermal", "cpu_thermal"))
_NEAR_C = 5.0
_SENSE_C = (1.0, 150.0)
_COOL = (
    "Clean fans and filters, check the cooler's seat and its pump, and let air through the case."
)


def _run(case: Case) -> Iterator[Finding]:
    host = case.host
    readings = [*_hwmon(host), *_zones(host)]
    throttled = max(
        (host.number(path) or 0
         for path in host.paths("sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")),
        default=0,
    )  # fmt: skip
    counts = f"slowed for heat {throttled:,} times since the boot" if throttled else ""
    limited = [(temperature, limit) for temperature, limit in readings if limit is not None]
    if limited:
        temperature, limit = min(limited, key=lambda reading: reading[1] - reading[0])
        evidence = f"{temperature:.0f} °C, its limit is {limit:.0f} °C"
        if temperature >= limit - _NEAR_C:
            yield Finding(
                Severity.WARN,
                "cpu-hot",
                "The processor is at its limit of heat and slows down",
                "; ".join(filter(None, (evidence, counts))),
                _COOL,
            )
            return
    if throttled:
        yield Finding(
            Severity.INFO,
            "cpu-throttled-before",
            "The processor was slowed for heat before, though not now",
            counts,
            "Look whether it keeps its speed under load: moestro doctor MODEL --soak 5m",
        )
    elif readings:
        yield ok("cpu-throttle", "The processor is cool",
                 f"{max(temperature for temperature, _ in readings):.0f} °C")  # fmt: skip


def _hwmon(host: Host) -> Iterator[tuple[float, float | None]]:
    """°C and limit of each sensor in a processor. `max` is where cooling should be at full speed,
    `crit` where the processor slows down."""
    for name in host.paths("sys/class/hwmon/hwmon*/name"):
        if host.text(name) not in _SENSORS:
            continue
        folder = name.rpartition("/")[0]
        for path in host.paths(f"{folder}/temp*_input"):
            temperature = _celsius(host, path)
            if temperature is not None:
                yield temperature, _celsius(host, path.removesuffix("_input") + "_crit")


def _zones(host: Host) -> Iterator[tuple[float, float | None]]:
    for kind in host.paths("sys/class/thermal/thermal_zone*/type"):
        if host.text(kind) not in _ZONES:
            continue
        folder = kind.rpartition("/")[0]
        temperature = _celsius(host, f"{folder}/temp")
        if temperature is None:
            continue
        limits = [
            _celsius(host, trip.removesuffix("_type") + "_temp")
            for trip in host.paths(f"{folder}/trip_point_*_type")
            if host.text(trip) in ("critical", "hot")
        ]
        yield temperature, min((limit for limit in limits if limit is not None), default=None)


def _celsius(host: Host, path: str) -> float | None:
    value = host.number(path)
    if value is None or not _SENSE_C[0] <= value / 1000 <= _SENSE_C[1]:
        return None
    return value / 1000


CHECK = Check("cpu-throttle", "machine", "Is the processor cool enough to keep its speed?", _run)
