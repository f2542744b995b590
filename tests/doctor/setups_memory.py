"""What was done to the memory of a healthy workstation, and to the service on it."""

from __future__ import annotations

import os
import socket
import weakref
from dataclasses import replace

from moestro.doctor.case import Address, Case
from moestro.findings import Severity
from moestro.hardware.gpu_state import GpuProcess
from moestro.planning import Plan
from moestro.planning.memory import Line
from moestro.units import GIB, MIB
from tests.doctor import healthy_memory
from tests.doctor.setups import Setup
from tests.doctor.workshop import Workshop, gpu_state, inventory, planned

LEAF = f"sys/fs/cgroup/{healthy_memory.FILES['proc/self/cgroup'].strip().removeprefix('0::/')}"
SERVICE = "system.slice/moestro.service"


def with_capacity(device: str, capacity_bytes: int | None, plan: Plan | None = None) -> Plan:
    """The workshop's plan where a device has another size."""
    plan = plan or planned()
    devices = tuple(
        replace(one, capacity_bytes=capacity_bytes) if one.device == device else one
        for one in plan.ledger.devices
    )
    return replace(plan, ledger=replace(plan.ledger, devices=devices))


def with_lines(*lines: Line, plan: Plan | None = None) -> Plan:
    """The workshop's plan with more on the host."""
    plan = plan or planned()
    return replace(plan, ledger=plan.ledger.with_host_lines(lines))


def host_weights(size_bytes: int) -> Line:
    return Line("CPU", "weights", "weights", size_bytes, "file")


def host_cache(size_bytes: int) -> Line:
    return Line("CPU", "cache", "key-value cache", size_bytes, "computed")


def meminfo(**kilobytes: int) -> str:
    """The healthy one with other figures."""
    lines = []
    for line in healthy_memory.MEMINFO.splitlines():
        name = line.split(":")[0]
        unit = " kB" if line.endswith("kB") else ""
        lines.append(f"{name}:{kilobytes[name]:>15}{unit}" if name in kilobytes else line)
    return "\n".join(lines) + "\n"


def _gpu_too_small(workshop: Workshop) -> Case:
    return workshop.case(plan=with_capacity("GPU0", 600 * MIB))


def _full_card_with_a_screen(workshop: Workshop) -> Case:
    plan = with_capacity("GPU0", planned().ledger.device("GPU0").total_bytes + 100 * MIB)
    gpus = (replace(plan.hardware.gpus[0], display=True),)
    return workshop.case(plan=replace(plan, hardware=replace(plan.hardware, gpus=gpus)))


def _card_hides_its_memory(workshop: Workshop) -> Case:
    return workshop.case(plan=with_capacity("GPU0", None))


def _weights_beyond_ram(workshop: Workshop) -> Case:
    return workshop.case(plan=with_lines(host_weights(386 * GIB)))


def small_container(workshop: Workshop, used_bytes: int = 600 * MIB) -> Case:
    workshop.write("proc/self/cgroup", "0::/\n")
    workshop.write("sys/fs/cgroup/memory.max", f"{1536 * MIB}\n")
    workshop.write("sys/fs/cgroup/memory.current", f"{used_bytes}\n")
    workshop.write("sys/fs/cgroup/memory.swap.max", "0\n")
    return workshop.case()


def _small_container_v1(workshop: Workshop) -> Case:
    workshop.write("proc/self/cgroup", "5:memory:/docker/4f1c\n3:cpuset:/docker/4f1c\n0::/\n")
    workshop.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{512 * MIB}\n")
    workshop.write("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{100 * MIB}\n")
    return workshop.case()


def _throttled(workshop: Workshop) -> Case:
    workshop.write(f"{LEAF}/memory.high", f"{GIB}\n")
    return workshop.case()


def _swaps_its_cache(workshop: Workshop) -> Case:
    machine = inventory()
    memory = replace(machine.memory, available_bytes=6 * GIB)
    plan = with_capacity("CPU", 6 * GIB, with_lines(host_cache(8 * GIB)))
    return workshop.case(inventory=replace(machine, memory=memory), plan=plan)


def _swapping(workshop: Workshop) -> Case:
    workshop.write("proc/meminfo", meminfo(SwapFree=3145728, MemAvailable=2097152))
    return workshop.case()


def _strict_overcommit(workshop: Workshop) -> Case:
    workshop.write("proc/sys/vm/overcommit_memory", "2\n")
    workshop.write("proc/meminfo", meminfo(CommitLimit=13500000))
    return workshop.case()


def _pool_of_huge_pages(workshop: Workshop) -> Case:
    folder = "sys/kernel/mm/hugepages/hugepages-2048kB"
    workshop.write(f"{folder}/nr_hugepages", "8192\n")
    workshop.write(f"{folder}/free_hugepages", "8192\n")
    return workshop.case()


def _endless_prompt_cache(workshop: Workshop) -> Case:
    plan = planned()
    settings = replace(plan.settings, prompt_cache_bytes=1 << 40)
    bound = Line("CPU", "other", "prompt cache", 1 << 40, "computed", resident=False)
    return workshop.case(plan=with_lines(bound, plan=replace(plan, settings=settings)))


def _prompt_cache_beyond_what_is_left(workshop: Workshop) -> Case:
    plan = with_lines(host_weights(50 * GIB))
    settings = replace(plan.settings, prompt_cache_bytes=9 * GIB)
    bound = Line("CPU", "other", "prompt cache", 8 * GIB, "computed", resident=False)
    return workshop.case(plan=with_lines(bound, plan=replace(plan, settings=settings)))


def _tenant(workshop: Workshop) -> Case:
    tenant = GpuProcess(2211, "/usr/bin/python3.12", 9 * GIB)
    machine = inventory()
    gpus = (replace(machine.gpus[0], free_bytes=14 * GIB),)
    return workshop.case(
        inventory=replace(machine, gpus=gpus),
        gpu_states=(replace(gpu_state(), processes=(tenant,)),),
    )


def _running(workshop: Workshop, command: str, own_kb: int) -> Case:
    for path, text in healthy_memory.process(7301, command, own_kb=own_kb).items():
        workshop.write(path, text)
    return workshop.case()


class _Environment(dict[str, str]):
    """A plain dictionary cannot be waited for: the case holds this one, and it the socket."""


def _taken_port(workshop: Workshop) -> Case:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        environment = _Environment()
        weakref.finalize(environment, os.close, listener.detach())
    host = workshop.host(environment=environment)
    return workshop.case(host=host, address=Address("127.0.0.1", port))


def _few_descriptors_for_many(workshop: Workshop) -> Case:
    address = Address("0.0.0.0", 0, keys=True)
    return workshop.case(host=workshop.limited(nofile=1024), address=address)


def _few_tasks(workshop: Workshop) -> Case:
    workshop.write(f"{LEAF}/pids.max", "64\n")
    workshop.write(f"{LEAF}/pids.current", "40\n")
    return workshop.case()


def in_service(workshop: Workshop, unit_file: str | None, **changes: object) -> Case:
    """The healthy case where systemd runs it."""
    workshop.write("proc/self/cgroup", f"0::/{SERVICE}\n")
    if unit_file is not None:
        workshop.write("etc/systemd/system/moestro.service", unit_file)
    environment = {"INVOCATION_ID": "6f1d0a5e8c8f4b7c9d0e1f2a3b4c5d6e", "LANG": "C.UTF-8"}
    return workshop.case(host=workshop.host(environment=environment), **changes)


def _service_without_restart(workshop: Workshop) -> Case:
    return in_service(
        workshop,
        "[Unit]\nDescription=moestro\n\n[Service]\nExecStart=/opt/moestro/bin/moestro up\n"
        "#Restart=always\n\n[Install]\nWantedBy=multi-user.target\n",
    )


def in_a_container(workshop: Workshop, **changes: object) -> Case:
    workshop.write(".dockerenv", "")
    workshop.write("proc/self/cgroup", "0::/\n")
    layers = "lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B"
    workshop.write(
        "proc/self/mountinfo", f"611 520 0:52 / / rw,relatime - overlay overlay rw,{layers}\n"
    )
    return workshop.case(**changes)


def _dumps_into_a_file(workshop: Workshop) -> Case:
    workshop.write("proc/sys/kernel/core_pattern", "core.%p\n")
    plan = with_lines(host_cache(20 * GIB))
    return workshop.case(host=workshop.limited(core=None), plan=plan)


SETUPS: tuple[Setup, ...] = (
    Setup(
        "gpu-too-small", "the GPU has 600 MiB, and the plan takes 810", "memory-short",
        Severity.FAIL, _gpu_too_small,
    ),
    Setup(
        "full-card-with-screen", "a screen hangs on the GPU, and 100 MiB are left beyond the plan",
        "memory-tight", Severity.WARN, _full_card_with_a_screen,
    ),
    Setup(
        "card-hides-its-memory", "the driver does not tell the GPU's memory", "memory-unknown",
        Severity.UNKNOWN, _card_hides_its_memory,
    ),
    Setup(
        "weights-beyond-ram", "386 GiB of weights on a host of 64 GiB", "weights-beyond-memory",
        Severity.FAIL, _weights_beyond_ram,
    ),
    Setup(
        "small-container", "a container of 1.5 GiB, 600 MiB of it used, without swap",
        "container-too-small", Severity.FAIL, small_container,
    ),
    Setup(
        "tight-container", "the same, 300 MiB of it used: room for the plan, not for its margin",
        "container-tight", Severity.WARN,
        lambda workshop: small_container(workshop, 300 * MIB),
    ),
    Setup(
        "small-container-v1", "a container of 512 MiB under version 1 of control groups",
        "container-too-small", Severity.FAIL, _small_container_v1,
    ),
    Setup(
        "throttled-container", "`memory.high` of 1 GiB, without a hard limit",
        "container-throttles", Severity.WARN, _throttled,
    ),
    Setup(
        "little-address-space", "`ulimit -v` of 512 MiB", "address-space-limited", Severity.FAIL,
        lambda workshop: workshop.case(host=workshop.limited(**{"as": 512 * MIB})),
    ),
    Setup(
        "little-data", "`ulimit -d` of 256 MiB", "address-space-limited", Severity.FAIL,
        lambda workshop: workshop.case(host=workshop.limited(data=256 * MIB)),
    ),
    Setup(
        "address-space-below-the-cards", "`ulimit -v` of 32 GiB with an NVIDIA GPU",
        "address-space-limited", Severity.WARN,
        lambda workshop: workshop.case(host=workshop.limited(**{"as": 32 * GIB})),
    ),
    Setup(
        "cache-in-swap", "a context cache of 8 GiB with 6 GiB of memory free and 8 GiB of swap",
        "swap-needed", Severity.FAIL, _swaps_its_cache,
    ),
    Setup(
        "swapping-host", "5 GiB of swap in use and 2 GiB of memory available", "swap-in-use",
        Severity.WARN, _swapping,
    ),
    Setup(
        "strict-overcommit", "`vm.overcommit_memory = 2` with 280 MiB left to promise",
        "overcommit-strict", Severity.FAIL, _strict_overcommit,
    ),
    Setup(
        "idle-huge-pages", "16 GiB in an unused pool of huge pages", "huge-pages-reserved",
        Severity.WARN, _pool_of_huge_pages,
    ),
    Setup(
        "endless-prompt-cache", "a plan file that asks for a prompt cache of 1 TiB",
        "caches-unbounded", Severity.FAIL, _endless_prompt_cache,
    ),
    Setup(
        "large-prompt-cache", "a prompt cache of 9 GiB where 5 are left", "caches-too-large",
        Severity.FAIL, _prompt_cache_beyond_what_is_left,
    ),
    Setup(
        "gpu-tenant", "another program holds 9 GiB of the GPU", "gpu-shared", Severity.WARN,
        _tenant,
    ),
    Setup(
        "unbounded-llama-server", "a llama-server runs with `--cache-ram -1`",
        "other-engine-running", Severity.WARN,
        lambda w: _running(w, "/usr/local/bin/llama-server -m m.gguf --cache-ram -1", 900_000),
    ),
    Setup(
        "large-neighbour", "an Ollama runner holds 12 GiB of its own", "other-engine-running",
        Severity.WARN,
        lambda w: _running(w, "/usr/local/bin/ollama runner --port 35117", 12 << 20),
    ),
    Setup(
        "open-to-all", "listens on 0.0.0.0 without a key", "open-without-key", Severity.FAIL,
        lambda workshop: workshop.case(address=Address("0.0.0.0", 0)),
    ),
    Setup(
        "open-container", "the same inside a container, where no other address can be published",
        "open-without-key", Severity.WARN,
        lambda workshop: in_a_container(workshop, address=Address("0.0.0.0", 8642)),
    ),
    Setup(
        "taken-port", "another program listens on the port", "port-taken", Severity.FAIL,
        _taken_port,
    ),
    Setup(
        "reserved-port", "port 443 without the right to it", "port-reserved", Severity.FAIL,
        lambda workshop: workshop.case(address=Address("127.0.0.1", 443)),
    ),
    Setup(
        "foreign-address", "an address of another machine", "bad-address", Severity.FAIL,
        lambda workshop: workshop.case(address=Address("192.0.2.7", 8642, keys=True)),
    ),
    Setup(
        "hardly-any-descriptors", "`ulimit -n` of 128", "too-few-descriptors", Severity.FAIL,
        lambda workshop: workshop.case(host=workshop.limited(nofile=128)),
    ),
    Setup(
        "few-descriptors-for-many", "`ulimit -n` of 1024 and open to other machines",
        "too-few-descriptors", Severity.WARN, _few_descriptors_for_many,
    ),
    Setup(
        "few-tasks", "`pids.max` of 64, 40 of them taken", "too-few-processes", Severity.FAIL,
        _few_tasks,
    ),
    Setup(
        "few-user-processes", "`ulimit -u` of 100", "too-few-processes", Severity.WARN,
        lambda workshop: workshop.case(host=workshop.limited(nproc=100)),
    ),
    Setup(
        "service-without-restart", "a systemd unit without `Restart=`", "no-restart-policy",
        Severity.WARN, _service_without_restart,
    ),
    Setup(
        "inside-a-container", "a container, whose restart policy cannot be seen from inside",
        "restart-policy-unknown", Severity.UNKNOWN, in_a_container,
    ),
    Setup(
        "core-into-a-file", "core dumps go to a plain file, and 20 GiB would be dumped",
        "core-dump-large", Severity.WARN, _dumps_into_a_file,
    ),
)  # fmt: skip
