"""All of them, in the order of the documentation's table."""

from __future__ import annotations

from tests.doctor import setups_agents, setups_machine, setups_memory, setups_model
from tests.doctor.setups import Setup

SETUPS: tuple[Setup, ...] = (
    *setups_model.SETUPS,
    *setups_memory.SETUPS,
    *setups_machine.SETUPS,
    *setups_agents.SETUPS,
)
