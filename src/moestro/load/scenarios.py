"""The built-in scenarios by name."""

from __future__ import annotations

from moestro.errors import UsageError
from moestro.load.scenario import Scenario
from moestro.load.scenario_sets import (
    agent,
    chat,
    code_edit,
    json_tools,
    long_prompt,
    random_words,
    users,
)
from moestro.load.scenario_sets.random_words import random_scenario

__all__ = ["SCENARIOS", "random_scenario", "scenario_named"]

SCENARIOS: dict[str, Scenario] = {
    module.SCENARIO.name: module.SCENARIO
    for module in (chat, users, long_prompt, code_edit, agent, json_tools, random_words)
}
"""chat, users, long-prompt, code-edit, agent, json-tools, random."""


def scenario_named(name: str) -> Scenario:
    """Raises UsageError where there is none of that name."""
    if name not in SCENARIOS:
        raise UsageError(
            f"There is no scenario “{name}”.", hint=f"Scenarios: {', '.join(SCENARIOS)}."
        )
    return SCENARIOS[name]
