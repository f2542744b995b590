"""The checks of the areas memory and service."""

from moestro.doctor.checks import (
    address,
    address_space,
    bounded_caches,
    container_memory,
    core_dumps,
    data_folder,
    file_descriptors,
    gpu_tenants,
    huge_pages,
    memory_lock,
    other_engines,
    overcommit,
    plan_fits,
    port,
    processes,
    restart_policy,
    swap,
)

MEMORY = tuple(
    module.CHECK
    for module in (
        plan_fits, container_memory, address_space, memory_lock, swap, overcommit, huge_pages,
        bounded_caches, gpu_tenants, other_engines,
    )
)  # fmt: skip
SERVICE = tuple(
    module.CHECK
    for module in (
        address, port, file_descriptors, processes, restart_policy, core_dumps, data_folder,
    )
)  # fmt: skip
