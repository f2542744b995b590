"""The services that run on this machine: one small file each, by port, while they do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from moestro.errors import MoestroError, UsageError
from moestro.hardware.store import data_folder, write_whole

SLACK_SECONDS = 2.0
"""How far two readings of a process's start may lie apart."""

MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Record:
    """`started_at` is when the process began, in seconds since the epoch: a number may be given to
    another process later. `log` is where its engines' words go, None if nowhere. `key` lets this
    user's other commands do everything there; the file is for this user alone."""

    pid: int
    started_at: float
    url: str
    model: str
    target: str
    log: str | None
    key: str = field(repr=False)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


def log_path(port: int) -> Path:
    return data_folder() / "logs" / f"{port}.log"


@contextmanager
def registered(url: str, model: str, target: str, log: Path | None, key: str) -> Iterator[Record]:
    """This process serves there, for as long as the context lasts. A folder that cannot be written
    costs nothing but `status`, `stop` and `logs`."""
    import psutil

    record = Record(
        pid=os.getpid(),
        started_at=float(psutil.Process().create_time()),
        url=url,
        model=model,
        target=target,
        log=None if log is None else str(log),
        key=key,
    )
    path = _folder() / f"{record.port}.json"
    with contextlib.suppress(OSError):
        _write(path, record)
    try:
        yield record
    finally:
        with contextlib.suppress(OSError):
            if _read(path) == record:
                path.unlink()


def running() -> list[Record]:
    """The services whose process still is, by port."""
    try:
        paths = sorted(_folder().glob("*.json"))
    except OSError:
        return []
    found = [record for path in paths if (record := _read(path)) is not None]
    return sorted((one for one in found if lives(one)), key=lambda one: one.port)


def the_one(port: int | None) -> Record:
    """The service at `port`, or the only one there is.

    Raises:
        MoestroError: there is none.
        UsageError: there are several.
    """
    found = [one for one in running() if port in (None, one.port)]
    if not found:
        where = "on this machine" if port is None else f"at port {port}"
        raise MoestroError(
            f"No service of this user runs {where}.",
            hint="moestro serve MODEL starts one; moestro status lists them.",
            code="no-such-service",
        )
    if len(found) > 1:
        ports = ", ".join(str(one.port) for one in found)
        raise UsageError(f"Several services run here, at ports {ports}.", hint="Choose by --port.")
    return found[0]


KEY_VARIABLES = ("MOESTRO_API_KEY", "OPENAI_API_KEY")


def key_for(url: str) -> str | None:
    """What to show at an endpoint: the key of the service of this user that has that address, or
    what the environment holds for others. None sends none."""
    asked = urlsplit(url)
    for record in running():
        its = urlsplit(record.url)
        names = {its.hostname, "localhost"}
        if asked.port == its.port and asked.hostname in names and asked.scheme == its.scheme:
            return record.key
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def _folder() -> Path:
    return data_folder() / "services"


def lives(record: Record) -> bool:
    """Whether its process still runs; one that only waits to be reaped does not."""
    import psutil

    try:
        process = psutil.Process(record.pid)
        with process.oneshot():
            ended = process.status() == psutil.STATUS_ZOMBIE
            created = process.create_time()
    except psutil.Error:
        return False
    return not ended and abs(created - record.started_at) < SLACK_SECONDS


def _read(path: Path) -> Record | None:
    """None for a file that is gone, damaged or of another version."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MOST_BYTES))
        return Record(
            int(data["pid"]),
            float(data["started_at"]),
            str(data["url"]),
            str(data["model"]),
            str(data["target"]),
            None if data["log"] is None else str(data["log"]),
            str(data["key"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(record)).encode())
