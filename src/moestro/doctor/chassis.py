"""What kind of case the machine sits in, as its maker wrote it into the SMBIOS tables."""

from __future__ import annotations

from moestro.doctor.host import Host

_NOTEBOOKS = frozenset((8, 9, 10, 14, 31, 32))
"""Portable, laptop, notebook, sub-notebook, convertible, detachable (DMTF DSP0134, 7.4.1)."""


def is_notebook(host: Host) -> bool:
    return host.number("sys/class/dmi/id/chassis_type") in _NOTEBOOKS
