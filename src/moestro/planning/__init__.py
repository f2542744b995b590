"""What will happen when this model runs on this machine? Pure: no files, no sockets, no engine."""

from moestro.planning.alternatives import Alternative
from moestro.planning.estimate import Estimate
from moestro.planning.forecaster import MachineSpeed, MtpGain, Speed
from moestro.planning.plan import Plan, make_plan
from moestro.planning.planner import Planner, Trial
from moestro.planning.settings import CacheType, FlashAttention, Reason, Settings, Source
from moestro.planning.wishes import Wishes
from moestro.planning.workload import Workload

__all__ = [
    "Alternative",
    "CacheType",
    "Estimate",
    "FlashAttention",
    "MachineSpeed",
    "MtpGain",
    "Plan",
    "Planner",
    "Reason",
    "Settings",
    "Source",
    "Speed",
    "Trial",
    "Wishes",
    "Workload",
    "make_plan",
]
