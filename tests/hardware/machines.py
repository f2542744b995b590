"""Machines that tests make up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moestro.findings import Finding, Severity
from moestro.hardware import Bandwidth, Cpu, Disk, Gpu, Inventory, Link, Memory
from moestro.units import GIB


def machine(**changes: Any) -> Inventory:
    """A desktop with everything filled in."""
    return replace(
        Inventory(
            name=None,
            source="this machine",
            system="Linux",
            cpu=Cpu("Some CPU", "x86_64", 8, 6, ("AVX", "AVX2"), 1),
            memory=Memory(
                total_bytes=64 * GIB,
                available_bytes=50 * GIB,
                limit_bytes=60 * GIB,
                swap_total_bytes=2 * GIB,
                swap_free_bytes=GIB,
                kind="DDR5-5600",
                channels=2,
                bandwidth=Bandwidth(60e9, "measured", 55e9, 62e9, "8 threads, 2026-01-01"),
            ),
            disks=(
                Disk("nvme0n1", "/", "nvme", 100 * GIB, Bandwidth(5e9, "measured")),
                Disk("tmpfs", "/tmp"),
            ),
            gpus=(
                Gpu(
                    "nvidia",
                    "NVIDIA GeForce RTX 4090",
                    24 * GIB,
                    capability=(8, 9),
                    free_bytes=23 * GIB,
                    bandwidth=Bandwidth(1008e9, "catalogue"),
                    link=Link(1, 16, 4, 16).with_peak(),
                    tflops_f16=165.2,
                    display=True,
                ),
            ),
            findings=(Finding(Severity.INFO, "code", "title", None, "fix"),),
        ),
        **changes,
    )
