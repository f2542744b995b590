"""Every check, one file each, in the order in which a report shows them.

A new one: a file with a `CHECK` here, its name in the list below, a set-up broken for it in
`tests/doctor/`. A check reads its `Case` and nothing else, so it can be tested without the machine.
"""

from __future__ import annotations

from moestro.doctor.check import Check
from moestro.doctor.checks import (
    address,
    address_space,
    agent_step,
    architecture,
    bounded_caches,
    complete,
    container_memory,
    context_length,
    core_dumps,
    cpu_governor,
    cpu_quota,
    cpu_stolen,
    cpu_throttle,
    data_folder,
    disk,
    engine_build,
    file_descriptors,
    gating,
    gpu_errors,
    gpu_support,
    gpu_tenants,
    gpu_throttle,
    host_load,
    huge_pages,
    low_bit,
    memory_channels,
    memory_lock,
    mtp,
    numa,
    other_engines,
    overcommit,
    pcie_link,
    plan_fits,
    plan_matches,
    port,
    processes,
    re_prefill,
    readable,
    restart_policy,
    router_precision,
    soak,
    swap,
    template_present,
    template_right,
    template_safe,
    tokenizer,
    verdict,
)

CHECKS: tuple[Check, ...] = tuple(
    module.CHECK
    for module in (
        readable, complete, architecture, router_precision, gating, mtp, low_bit, verdict,
        context_length, tokenizer, template_present, template_safe, template_right,
        plan_fits, plan_matches, container_memory, address_space, bounded_caches, memory_lock, swap,
        overcommit, huge_pages, gpu_tenants, other_engines,
        engine_build, gpu_support, pcie_link, gpu_throttle, gpu_errors,
        memory_channels, numa, cpu_governor, cpu_throttle, cpu_quota, cpu_stolen, host_load, disk,
        soak,
        address, port, file_descriptors, processes, restart_policy, core_dumps, data_folder,
        agent_step, re_prefill,
    )
)  # fmt: skip
