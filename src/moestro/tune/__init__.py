"""Settings that win on this machine, by measurement."""
