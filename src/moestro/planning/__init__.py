"""What will happen when this model runs on this machine? Pure: no files, no sockets, no engine."""

from moestro.planning.settings import CacheType, Reason, Settings, Source, Workload

__all__ = ["CacheType", "Reason", "Settings", "Source", "Workload"]
