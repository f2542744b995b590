from __future__ import annotations

from dataclasses import replace
from typing import Any

import psutil
import pytest

from moestro.errors import HardwareError
from moestro.hardware.limits import Limits
from moestro.hardware.memory import Memory, available_bytes, this_memory
from moestro.units import GIB


def test_this_memory_agrees_with_the_system():
    memory = this_memory(Limits())
    assert memory.total_bytes == psutil.virtual_memory().total
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert memory.limit_bytes is None
    assert memory.usable_total_bytes == memory.total_bytes


def test_a_containers_limit():
    memory = this_memory(Limits(memory_bytes=GIB, memory_used_bytes=GIB // 4))
    assert memory.limit_bytes == GIB
    assert memory.available_bytes <= 3 * GIB // 4
    assert memory.usable_total_bytes == GIB
    # A limit above what is built in limits nothing.
    assert this_memory(Limits(memory_bytes=1 << 50)).limit_bytes is None


def test_available_memory_under_a_limit():
    assert available_bytes(10 * GIB, Limits()) == 10 * GIB
    limited = Limits(memory_bytes=4 * GIB, memory_used_bytes=GIB)
    assert available_bytes(10 * GIB, limited) == 3 * GIB
    assert available_bytes(2 * GIB, limited) == 2 * GIB
    assert available_bytes(2 * GIB, replace(limited, memory_used_bytes=5 * GIB)) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"total_bytes": 0},
        {"available_bytes": -1},
        {"available_bytes": 3 * GIB},
        {"swap_total_bytes": 1, "swap_free_bytes": 2},
        {"channels": 0},
    ],
)
def test_impossible_memory(values: dict[str, Any]):
    with pytest.raises(HardwareError):
        Memory(**{"total_bytes": 2 * GIB, "available_bytes": GIB, **values})
