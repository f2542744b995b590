"""Is this a virtual machine? Then slots, modules and clocks are what the hypervisor shows."""

from __future__ import annotations

import re

from moestro.doctor.host import Host

# What makers of virtual machines call themselves in `/sys/class/dmi/id`. A cloud's bare metal bears
# the maker's name too, but its processor does not say `hypervisor`; so names count on ARM alone,
# where processors say nothing of it.
_VENDORS = re.compile(
    r"QEMU|KVM|Xen|VMware|VirtualBox|innotek|Bochs|Parallels|BHYVE|Google Compute Engine|"
    r"Apple Virtualization|OpenStack|Alibaba Cloud ECS|\bHVM domU\b|Virtual Machine",
    re.IGNORECASE,
)


def is_virtual(host: Host) -> bool:
    cpu = host.text("proc/cpuinfo") or ""
    flags = re.search(r"^flags\s*:(.*)$", cpu, re.M)
    if flags is not None:
        return "hypervisor" in flags[1].split()
    names = (host.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return any(name and _VENDORS.search(name) for name in names)
