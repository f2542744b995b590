from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from moestro.errors import HardwareError
from moestro.hardware import Cpu, Disk, Gpu, Inventory, Memory
from moestro.units import GIB, MIB
from tests.hardware.machines import machine


def through_json(inventory: Inventory) -> Inventory:
    return Inventory.from_json(json.loads(json.dumps(inventory.to_json())))


def test_json_brings_the_same_machine_back():
    inventory = machine()
    assert through_json(inventory) == inventory
    bare = Inventory("x", "file", "Linux", Cpu(None, "x86_64", None, 1), Memory(GIB, GIB))
    assert through_json(bare) == bare
    assert inventory.to_json()["identity"] == inventory.identity


def without(key: str) -> dict[str, Any]:
    value = machine().to_json()
    del value[key]
    return value


def changed(part: str, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(machine().to_json()))
    inner = found[part][0] if isinstance(found[part], list) else found[part]
    inner.update(values)
    return found


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {},
        without("cpu"),
        without("findings"),
        changed("memory", total_bytes=-1),
        changed("memory", total_bytes="much"),
        changed("memory", more=1),
        changed("gpus", vendor="matrox"),
        changed("gpus", capability=[8]),
        changed("gpus", link=5),
        changed("disks", kind="tape"),
        changed("findings", severity="awful"),
        {**machine().to_json(), "source": "rumour"},
    ],
)
def test_json_of_another_kind(value: Any):
    with pytest.raises(HardwareError):
        Inventory.from_json(value)


def test_identity_belongs_to_the_machine():
    inventory = machine()
    same = replace(
        inventory,
        name="another name",
        memory=replace(
            inventory.memory,
            total_bytes=64 * GIB - 100 * MIB,  # another kernel
            available_bytes=GIB,
            bandwidth=None,
            limit_bytes=None,
        ),
        gpus=(replace(inventory.gpus[0], free_bytes=None, display=False),),
        disks=(),
        findings=(),
    )
    assert same.identity == inventory.identity
    assert re.fullmatch(r"[a-z0-9-]+", inventory.identity)
    others = [
        replace(inventory, gpus=()),
        replace(inventory, gpus=inventory.gpus * 2),
        replace(inventory, cpu=replace(inventory.cpu, usable_cores=1)),
        replace(inventory, cpu=replace(inventory.cpu, model="Another CPU")),
        replace(inventory, memory=replace(inventory.memory, total_bytes=96 * GIB)),
    ]
    assert len({inventory.identity, *(other.identity for other in others)}) == 6


def test_a_model_may_use_the_gpus_own_memory_too():
    inventory = machine()
    (card,) = inventory.gpus
    assert replace(inventory, gpus=()).usable_memory_bytes == 50 * GIB
    assert inventory.usable_memory_bytes == 73 * GIB
    assert replace(inventory, gpus=(replace(card, free_bytes=None),)).usable_memory_bytes == (
        74 * GIB
    )
    # A GPU in the host's memory brings none.
    shared = Gpu("apple", "M4", 40 * GIB, shared=True)
    assert replace(inventory, gpus=(shared,)).usable_memory_bytes == 50 * GIB


def test_impossible_machines():
    with pytest.raises(HardwareError, match="cannot share more memory"):
        machine(gpus=(Gpu("apple", "M4", 65 * GIB, shared=True),))
    with pytest.raises(HardwareError, match="kind of disk"):
        Disk("x", kind="tape")  # type: ignore[arg-type]
    with pytest.raises(HardwareError):
        Disk("x", free_bytes=-1)
