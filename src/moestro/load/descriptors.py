"""How many connections this process may hold open."""

from __future__ import annotations

import resource

_KEPT = 64
"""For what else is open: files, pipes, an engine's log."""

_MOST = 65_536


def most_connections() -> int:
    """As many as the limit on open files leaves; more would fail as if the endpoint had."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return min(max(limit - _KEPT, 1), _MOST)
