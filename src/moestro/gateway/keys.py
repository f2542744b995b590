"""API keys: what one is, and what it opens.

A key's secret is `mo-` and 32 random bytes. Only its SHA-256 is kept. A slow hash (bcrypt, Argon2)
is for passwords, which can be guessed; 256 random bits cannot, however fast a guess is, and every
request would have to wait for it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from moestro.gateway.limits import UNLIMITED, Limits

PREFIX = "mo-"
_SECRET_BYTES = 32


class KeyScope(StrEnum):
    """What a key opens. None of them includes another."""

    INFERENCE = "inference"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """`digest` is the SHA-256 of the secret, 32 bytes. `created` is in UTC."""

    id: str
    name: str
    scopes: frozenset[KeyScope]
    created: datetime
    digest: bytes
    limits: Limits = UNLIMITED

    def to_json(self) -> dict[str, Any]:
        """What may be shown: everything but the digest."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "created": self.created.isoformat(timespec="seconds"),
            "requests_per_minute": self.limits.requests_per_minute,
            "concurrent": self.limits.concurrent,
        }


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
