"""Is this a container? Then addresses, restarts and devices are what its host gives it."""

from __future__ import annotations

from moestro.doctor.host import Host


def in_container(host: Host) -> bool:
    """A container's runtime leaves a mark. An image that was unpacked onto a disk keeps Docker's;
    then the whole of a block device lies at the root, which no container has."""
    if host.data("run/.containerenv") is not None:
        return True
    if host.data(".dockerenv") is None:
        return False
    for line in (host.text("proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(), right.split()
        if len(fields) > 4 and fields[4] == "/" and len(source) > 1:
            return fields[3] != "/" or not source[1].startswith("/dev/")
    return True


def in_pod(host: Host) -> bool:
    """Kubernetes tells every container of a pod where its own service is."""
    return "KUBERNETES_SERVICE_HOST" in host.environment
