"""Whom a load is put on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from moestro.client.endpoint import normal_url
from moestro.errors import UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI endpoint. `url` may be what a person types; `model` None leaves it to the endpoint.

    Raises:
        UsageError: not an HTTP address, or a key that no HTTP header can carry.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", normal_url(self.url))
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise UsageError(
                "The API key is empty or holds characters that no HTTP header can carry.",
                hint="Look for a line break at its end.",
            )

    @property
    def is_here(self) -> bool:
        """Whether this machine answers; energy that is read here means nothing for others."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")
