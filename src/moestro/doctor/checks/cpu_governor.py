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
_NO_TURBO = "sys/devices/system/cpu/intel_pstate/no_turbo"
_BOOST = "sys/devices/system/cpu/cpufreq/boost"
_ACTIVE_DRIVERS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
_CAPPED = 0.9
_TO_PERFORMANCE = "sudo cpupower frequency-set -g performance, or the power mode “performance”."


def _run(case: Case) -> Iterator[Finding]:
    host = case.host
    policies = host.paths(_POLICIES)
    if not policies:  # virtual machines have none
        return
    troubles = [*_saving(host, policies), *_hesitating(host, policies), *_turbo(case),
                *_capped(host, policies)]  # fmt: skip
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


def _hesitating(host: Host, policies: list[str]) -> Iterator[Finding]:
    found = {how for policy in policies if (how := _hesitates(host, policy)) is not None}
    if found:
        yield Finding(
            Severity.INFO,
            "cpu-hesitates",
            "The processor is slow to raise its frequency, or is told by a program which to take",
            "; ".join(sorted(found)),
            f"Compare the speed with performance: {_TO_PERFORMANCE}",
        )


def _hesitates(host: Host, policy: str) -> str | None:
    driver, governor = (host.text(f"{policy}/{name}")
                        for name in ("scaling_driver", "scaling_governor"))  # fmt: skip
    if governor == "conservative":
        return f"{driver} with the governor conservative: step by step"
    if governor == "userspace" and not host.number(f"{policy}/scaling_setspeed"):
        return f"{driver} with the governor userspace: what it was set to is not told"
    preference = host.text(f"{policy}/energy_performance_preference")
    if governor == "powersave" and driver in _ACTIVE_DRIVERS and preference == "balance_power":
        return f"{driver} prefers {preference}"
    return None


def _turbo(case: Case) -> Iterator[Finding]:
    """Where the GPUs compute all of the model, the processor's turbo matters little."""
    host = case.host
    off = [
        f"{path.rpartition('/')[2]} is {value}"
        for path, value in ((_NO_TURBO, 1), (_BOOST, 0))
        if host.number(path) == value
    ]
    if off:
        base = host.number(f"{host.paths(_POLICIES)[0]}/base_frequency")
        speed = f" of {base / 1e6:.2f} GHz" if base and base > 0 else ""
        yield Finding(
            Severity.WARN if _computes(case) else Severity.INFO,
            "cpu-turbo-off",
            "The processor's turbo is switched off",
            f"{'; '.join(off)}: it never runs above its base frequency{speed}, and prompts are "
            "read more slowly",
            f"Switch it on in the firmware, or: echo 0 | sudo tee /{_NO_TURBO} (Intel), "
            f"echo 1 | sudo tee /{_BOOST} (others).",
        )


def _capped(host: Host, policies: list[str]) -> Iterator[Finding]:
    if host.number(_NO_TURBO) == 1:
        return  # both figures then stand for the base frequency, or only one: named already
    for policy in policies:
        chosen = host.text(f"{policy}/scaling_governor") == "userspace"
        allowed = host.number(f"{policy}/{'scaling_setspeed' if chosen else 'scaling_max_freq'}")
        able = host.number(f"{policy}/cpuinfo_max_freq")
        if allowed and able and 0 < allowed < _CAPPED * able:
            how = "set by the governor userspace to " if chosen else ""
            fix = (
                _TO_PERFORMANCE
                if chosen
                else f"sudo cpupower frequency-set -u {able}kHz, unless heat or noise forbid it."
            )
            yield Finding(
                Severity.WARN,
                "cpu-frequency-capped",
                "The processor's frequency is capped below what it can do",
                f"{policy.rpartition('/')[2]}: {how}{allowed / 1e6:.2f} of {able / 1e6:.2f} GHz",
                fix,
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
