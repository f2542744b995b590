"""Who may do what: keys and limits, in front of every route.

Without any key, on loopback, whoever reaches the socket may use the model: programs of this
machine, that is, and its users. Not what a web page tells a browser to do: a page whose name was
made to point here ("DNS rebinding") is known by the Host header, one that sends requests to a
foreign address by Origin.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from moestro.errors import GatewayError
from moestro.gateway import failure
from moestro.gateway.call import discard_body
from moestro.gateway.failure import Failure, RequestFailed, form_for
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope, digest_of
from moestro.gateway.limits import UNLIMITED, Limits, Turnstile

CALLER = "moestro.caller"
"""Where a request's scope holds its `Caller`."""

OPEN = "/health"
SCOPES = {
    "/v1": KeyScope.INFERENCE,
    "/metrics": KeyScope.METRICS,
    "/api": KeyScope.METRICS,
    "/admin": KeyScope.ADMIN,
}
"""What a route and all below it need. Any other path needs `admin`, so that a route that is
forgotten here is closed."""

PAGES = frozenset({"/", "/dashboard.js", "/dashboard.css", "/openapi.json"})
"""What needs no key: a browser sends none when a person opens an address. They hold no data, or as
much as the caller may see."""

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]/@]+))(?::\d{0,5})?")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: a key's id, or "" for all who need none. Without scopes it is somebody of
    whom nothing is known, at one of the doors that are open to all."""

    id: str
    scopes: frozenset[KeyScope]
    limits: Limits = UNLIMITED


ANYONE = Caller("", frozenset({KeyScope.INFERENCE, KeyScope.METRICS}))
"""Where nobody needs a key. Administration needs one everywhere."""

STRANGER = Caller("", frozenset())
OWNER = Caller("owner", frozenset(KeyScope))


def caller_of(scope: Scope) -> Caller:
    """Whom `AccessControl` let in; `ANYONE` where nothing stands in front of the routes."""
    caller = scope.get(CALLER, ANYONE)
    assert isinstance(caller, Caller)
    return caller


def check_binding(*, host_is_loopback: bool, keys_exist: bool, open_to_all: bool) -> None:
    """
    Raises:
        GatewayError: other machines could use the endpoint without a key, and nobody said so.
    """
    if not (host_is_loopback or keys_exist or open_to_all):
        raise GatewayError(
            "There are no keys, and whoever reaches this address could use the model.",
            hint="moestro keys create makes one. Or listen on this machine only, without --host. "
            "Where something else looks who comes, say so with --no-keys.",
            code="no-keys",
        )


class Access:
    """`ring` None knows no keys but `own`, the secret of the process that serves: what it needs to
    reach itself, and what it leaves for other commands of the same user. `loopback` says whether
    the socket can be reached from this machine only. `open_to_all` is the user's word that somebody
    else, a proxy, looks who comes: then nobody needs a key, but who sends a valid one has its
    limits. `origins` are web pages that may call it nevertheless, `*` all."""

    def __init__(
        self,
        ring: KeyRing | None,
        *,
        loopback: bool,
        open_to_all: bool = False,
        own: str | None = None,
        origins: Collection[str] = (),
        turnstile: Turnstile | None = None,
    ) -> None:
        self.turnstile = turnstile or Turnstile()
        self._ring = ring
        self._loopback = loopback
        self._open_to_all = open_to_all
        self._own = None if own is None else digest_of(own)
        self.origins = frozenset(origins)

    @classmethod
    def private(cls, own: str) -> Access:
        """For an endpoint that only the process that serves is to use."""
        return cls(None, loopback=True, own=own)

    def caller(self, path: str, headers: Headers) -> Caller:
        """Who asks for `path`, if it is theirs to ask for. A key counts in a header only: addresses
        end up in logs and histories.

        Raises:
            RequestFailed: 401 or 403.
        """
        sent = _secrets(headers)
        known = next(filter(None, map(self._find, sent)), None)
        guarded = not self._open_to_all and (
            known is not None or not self._loopback or self._ring is None or self._ring.ever_any
        )
        if not guarded and not self._open_to_all:
            _check_host(headers)
        if _is_under(path, OPEN) or path in PAGES:
            return known or (STRANGER if guarded else ANYONE)
        needed = _scope_of(path)
        if known is None:
            if guarded or needed not in ANYONE.scopes:
                raise RequestFailed(failure.unauthorized(given=bool(sent)))
            if not self._open_to_all:
                self._check_origin(headers.get("origin"))
            return ANYONE
        if needed not in known.scopes:
            raise RequestFailed(_lacks(needed, path))
        return known

    def _check_origin(self, origin: str | None) -> None:
        """Where nobody shows a key: which page made the browser send this? Those of this machine
        may, and extensions and programs that are built like a page.

        Raises:
            RequestFailed: 403.
        """
        if origin is None or origin in self.origins or "*" in self.origins:
            return
        if _is_foreign_page(origin):
            raise RequestFailed(
                failure.forbidden(
                    f"Without a key, pages of “{origin[:80]}” can't call this.",
                    "foreign_origin",
                    "Make a key (moestro keys create) and send it, or serve with "
                    "--allow-origin and that name.",
                )
            )

    def _find(self, secret: str) -> Caller | None:
        if self._own is not None and hmac.compare_digest(self._own, digest_of(secret)):
            return OWNER
        key = None if self._ring is None else self._ring.find(secret)
        if key is None:
            return None
        scopes = key.scopes | ANYONE.scopes if self._open_to_all else key.scopes
        return Caller(key.id, scopes, key.limits)


class AccessControl:
    """Lets a request through to the routes, or answers it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = await self._let_in(scope, receive, send)
        if refusal is None:
            return
        if not await discard_body(Request(scope, receive)):
            refusal = replace(refusal, closes=True)
        body = refusal.body(form_for(scope["path"]))
        response = Response(body, refusal.status, refusal.headers())
        await response(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> Failure | None:
        """Whatever the routes raise goes through here as it is: it is no refusal."""
        turnstile, works = self._access.turnstile, _is_work(scope)
        try:
            caller = self._access.caller(scope["path"], Headers(scope=scope))
            if works:
                turnstile.enter(caller.id, caller.limits)
        except RequestFailed as refused:
            return refused.failure
        scope[CALLER] = caller
        try:
            await self._app(scope, receive, send)
        finally:
            if works:
                turnstile.leave(caller.id)
        return None


def _is_work(scope: Scope) -> bool:
    """What limits count: requests for which the engine may have to work."""
    return scope["method"] == "POST" and _is_under(scope["path"], "/v1")


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _scope_of(path: str) -> KeyScope:
    return next(
        (scope for prefix, scope in SCOPES.items() if _is_under(path, prefix)), KeyScope.ADMIN
    )


def _lacks(needed: KeyScope, path: str) -> Failure:
    hint = f"moestro keys create --scope {needed} makes one that is."
    if not any(_is_under(path, known) for known in SCOPES):
        hint = "The base URL of an OpenAI client ends in /v1."
    return failure.forbidden(
        f"This key is not for {path[:200]}: it lacks the scope “{needed}”.", "missing_scope", hint
    )


def _secrets(headers: Headers) -> list[str]:
    """Where OpenAI's clients send a key, and where Anthropic's do."""
    bearer = _BEARER.fullmatch(headers.get("authorization", ""))
    sent = [bearer[1] if bearer else "", headers.get("x-api-key", "").strip()]
    return [secret for secret in sent if secret]


def _check_host(headers: Headers) -> None:
    """
    Raises:
        RequestFailed: 403, somebody reached this machine under another name than its own.
    """
    for host in headers.getlist("host"):
        if not _is_loopback(host):
            raise RequestFailed(
                failure.forbidden(
                    f"Without keys, “{host[:80]}” is no name under which this can be called.",
                    "foreign_host",
                    "Call it as localhost or 127.0.0.1, or make a key: moestro keys create.",
                )
            )


def _is_foreign_page(origin: str) -> bool:
    scheme = origin.partition(":")[0].lower()
    # A page of any site gets the origin “null” for what it does inside a sandboxed frame.
    return origin == "null" or (
        scheme in ("http", "https") and not _is_loopback(_authority(origin) or "")
    )


def _authority(origin: str) -> str | None:
    scheme, found, rest = origin.partition("://")
    return rest if found and scheme else None


@lru_cache(maxsize=64)
def _is_loopback(authority: str) -> bool:
    """Whether a `host[:port]` is a name that only this machine itself has."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return False
    name = (match["six"] or match["name"]).lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
