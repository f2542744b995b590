"""May the processor run at its speed? Governor, caps, turbo.

The drivers `intel_pstate` and `amd-pstate-epp` call their ordinary governor `powersave`: there the
preference for energy decides (Linux, admin-guide/pm/intel_pstate and amd-pstate). With any other
driver `powersave` is the lowest frequency, always.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity

_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
_ACTIVE_DRIVERS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
_CAPPED = 0.9
_TO_PERFORMANCE = "sudo cpupower frequency-set -g performance, or the power mode “performance”."


def _run(case: Case) -> Iterator[Finding]:
    host = case.host
    policies = host.paths(_POLICIES)
    if not policies:  # virtual machines have none
        return
    troubles = [*_saving(host, policies), *_turbo(case), *_capped(host, policies)]
    yield from troubles
    if not troubles:
        first = policies[0]
        how = f"{host.text(f'{first}/scaling_driver')}, {host.text(f'{first}/scaling_governor')}"
        yield ok("cpu-governor", "The processor may run at its full speed", how)


def _saving(host: Host, policies: list[str]) -> Iterator[Finding]:
    slow = {how for policy in policies if (how := _saves(host, policy)) is not None}
    if slow:
        yield Finding(
            Severity.WARN,
            "cpu-powersave",
            "The processor is told to save power rather than to be fast",
            "; ".join(sorted(slow)),
            _TO_PERFORMANCE,
        )


def _saves(host: Host, policy: str) -> str | None:
    driver, governor = (host.text(f"{policy}/{name}")
                        for name in ("scaling_driver", "scaling_governor"))  # fmt: skip
    if governor != "powersave":
        return None
    if driver not in _ACTIVE_DRIVERS:
        return f"{driver} with the governor powersave: the lowest frequency, always"
    preference = host.text(f"{policy}/energy_performance_preference")
    return f"{driver} prefers {preference}" if preference == "power" else None


def _turbo(case: Case) -> Iterator[Finding]:
    """Where the GPUs compute all of the model, the processor's turbo matters little."""
    host = case.host
    off = (
        host.number("sys/devices/system/cpu/intel_pstate/no_turbo") == 1
        or host.number("sys/devices/system/cpu/cpufreq/boost") == 0
    )
    if off:
        yield Finding(
            Severity.WARN if _computes(case) else Severity.INFO,
            "cpu-turbo-off",
            "The processor's turbo is switched off",
            "it never runs above its base frequency: prompts are read more slowly",
            "Switch it on in the firmware, or: echo 0 | sudo tee "
            "/sys/devices/system/cpu/intel_pstate/no_turbo (Intel), echo 1 | sudo tee "
            "/sys/devices/system/cpu/cpufreq/boost (others).",
        )


def _capped(host: Host, policies: list[str]) -> Iterator[Finding]:
    if host.number("sys/devices/system/cpu/intel_pstate/no_turbo") == 1:
        return  # both figures then stand for the base frequency, or only one: named already
    for policy in policies:
        allowed = host.number(f"{policy}/scaling_max_freq")
        able = host.number(f"{policy}/cpuinfo_max_freq")
        if allowed and able and 0 < allowed < _CAPPED * able:
            yield Finding(
                Severity.WARN,
                "cpu-frequency-capped",
                "The processor's frequency is capped below what it can do",
                f"{policy.rpartition('/')[2]}: {allowed / 1e6:.2f} of {able / 1e6:.2f} GHz",
                f"sudo cpupower frequency-set -u {able}kHz, unless heat or noise forbid it.",
            )
            return


def _computes(case: Case) -> bool:
    """Whether the processor multiplies matrices."""
    if not case.inventory.gpus or case.plan is None:
        return True
    settings, blocks = case.plan.settings, case.plan.model.block_count
    on_gpu = settings.gpu_layers is None or settings.gpu_layers > (blocks or 0)
    return not on_gpu or settings.cpu_expert_layers > 0


CHECK = Check(
    "cpu-governor", "machine", "May the processor run at its full speed?", _run, quick=True
)
