"""Load on an OpenAI endpoint: made requests, and what became of them."""

from moestro.load.calibrate import calibrate
from moestro.load.energy import Energy
from moestro.load.generate import DEFAULT_CHARACTERS_PER_TOKEN, Load, client_of, generate
from moestro.load.prompt_file import from_file
from moestro.load.record import RequestRecord
from moestro.load.result import LoadResult
from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenarios import SCENARIOS, random_scenario, scenario_named
from moestro.load.summary import Goodput, Slo, Spread, Summary, summarise
from moestro.load.target import Target

__all__ = [
    "DEFAULT_CHARACTERS_PER_TOKEN",
    "SCENARIOS",
    "Energy",
    "Goodput",
    "Load",
    "LoadResult",
    "RequestRecord",
    "Scenario",
    "Session",
    "Slo",
    "Spread",
    "Summary",
    "Target",
    "Turn",
    "calibrate",
    "client_of",
    "from_file",
    "generate",
    "random_scenario",
    "scenario_named",
    "summarise",
]
