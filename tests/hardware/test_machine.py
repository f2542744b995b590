from __future__ import annotations

import os
from dataclasses import replace

import psutil

from moestro.hardware import Gpu, Machine, this_machine
from moestro.hardware.limits import Limits
from moestro.hardware.machine import allowed_cpus, available_bytes, parse_cpuinfo
from moestro.units import GIB

MACHINE = Machine("Linux", "x86_64", "Some CPU", 8, 8, 64 * GIB, 50 * GIB)


def test_this_machine_agrees_with_the_system():
    machine = this_machine()
    assert machine.system == os.uname().sysname
    assert machine.architecture == os.uname().machine
    assert 1 <= machine.usable_cores <= allowed_cpus()
    assert 0 < machine.memory_available_bytes <= machine.memory_bytes
    assert machine.memory_bytes <= psutil.virtual_memory().total


def test_affinity_is_respected():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cpus() == 1
        assert this_machine().usable_cores == 1
    finally:
        os.sched_setaffinity(0, before)


def test_available_memory_under_a_limit():
    assert available_bytes(10 * GIB, Limits()) == 10 * GIB
    limited = Limits(memory_bytes=4 * GIB, memory_used_bytes=GIB)
    assert available_bytes(10 * GIB, limited) == 3 * GIB
    assert available_bytes(2 * GIB, limited) == 2 * GIB
    assert available_bytes(2 * GIB, replace(limited, memory_used_bytes=5 * GIB)) == 0


def test_a_model_may_use_the_gpus_own_memory_too():
    gpus = (Gpu("nvidia", "A", 24 * GIB), Gpu("nvidia", "B", 24 * GIB))
    assert MACHINE.usable_memory_bytes == 50 * GIB
    assert replace(MACHINE, gpus=gpus).usable_memory_bytes == 98 * GIB
    # Apple's GPU shares the host's memory, which is already counted.
    assert replace(MACHINE, gpus=(Gpu("apple", "M4"),)).usable_memory_bytes == 50 * GIB


def test_processor_names():
    assert parse_cpuinfo("processor\t: 0\nmodel name\t: AMD EPYC 7B13\n") == "AMD EPYC 7B13"
    assert parse_cpuinfo("processor : 0\nModel : Raspberry Pi 5 Model B\n") == (
        "Raspberry Pi 5 Model B"
    )
    assert parse_cpuinfo("processor : 0\nBogoMIPS : 100\n") is None
