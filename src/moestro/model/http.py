"""HTTP as moestro speaks it: one way to ask, one place that turns trouble into sentences."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit, urlunsplit

from moestro import __version__
from moestro.errors import DownloadError, ModelNotFound, MoestroError

TIMEOUT_SECONDS = 20.0
_USER_AGENT = f"moestro/{__version__}"


def request(
    address: str,
    *,
    token: str | None = None,
    range_: str | None = None,
    if_range: str | None = None,
) -> urllib.request.Request:
    """A GET of `address`, or of a part of it. `token` is not sent on to where it redirects."""
    headers = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT}
    if range_ is not None:
        headers["Range"] = range_
    if if_range is not None:
        headers["If-Range"] = if_range
    asked = urllib.request.Request(address, headers=headers)
    if token:
        # "Unredirected": storage servers behind a hub must not see it.
        asked.add_unredirected_header("Authorization", f"Bearer {token}")
    return asked


def file_name(address: str) -> str:
    """The last part of an address's path."""
    return unquote(urlsplit(address).path).rpartition("/")[2] or address


def sister(address: str, name: str) -> str:
    """The address of another file in the same folder."""
    parts = urlsplit(address)
    folder = parts.path.rpartition("/")[0]
    return urlunsplit(parts._replace(path=f"{folder}/{name}"))


def host(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


@contextlib.contextmanager
def translated(address: str) -> Iterator[None]:
    """Turns what networks do into moestro's errors."""
    try:
        yield
    except MoestroError:
        raise
    except urllib.error.HTTPError as error:
        raise _http_error(address, error.code) from error
    except urllib.error.URLError as error:
        reason = error.reason
        raise _network_error(
            address, reason if isinstance(reason, BaseException) else error
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _network_error(address, error) from error


def _http_error(address: str, status: int) -> MoestroError:
    server, name = host(address), file_name(address)
    if status in (404, 410):
        return ModelNotFound(
            f"{server} has no {name} (HTTP {status}).", hint="Check the address for a typo."
        )
    if status in (401, 403):
        return DownloadError(
            f"{server} does not let you read {name} (HTTP {status}).",
            hint="If it is a gated or private model: accept its terms on the hub, then run "
            "`hf auth login` or set HF_TOKEN.",
        )
    if status == 429:
        return DownloadError(
            f"{server} asks to slow down (HTTP 429).", hint="Wait a few minutes and try again."
        )
    if status >= 500:
        return DownloadError(
            f"{server} has trouble of its own (HTTP {status}).", hint="Try again later."
        )
    return DownloadError(
        f"{server} refused {name} (HTTP {status}).",
        hint="Download the file by other means and give its path.",
    )


def _network_error(address: str, error: BaseException) -> DownloadError:
    server = host(address)
    match error:
        case socket.gaierror():
            return DownloadError(
                f"No server called {server} was found.",
                hint="Check the address, and that this machine reaches the network.",
            )
        case TimeoutError():
            return DownloadError(
                f"{server} did not answer within {TIMEOUT_SECONDS:g} s.", hint="Try again later."
            )
        case ConnectionRefusedError():
            return DownloadError(
                f"{server} refused the connection.",
                hint="Check the address and its port, and that the server runs.",
            )
        case ssl.SSLError():
            return DownloadError(
                f"The connection to {server} is not secure: {error.reason or error}.",
                hint="Check the clock of this machine and its certificates.",
            )
        case _:
            return DownloadError(
                f"The connection to {server} broke: {error or type(error).__name__}.",
                hint="Try again; if it persists, download the file and give its path.",
            )
