"""What will happen when this model runs on this machine? Pure: no files, no sockets, no engine."""

from moestro.planning.choose import Choice, Wishes, choose
from moestro.planning.settings import CacheType, Reason, Settings, Source

__all__ = ["CacheType", "Choice", "Reason", "Settings", "Source", "Wishes", "choose"]
