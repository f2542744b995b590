"""The services that run on this machine: one small file each, by port, while they do."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from moestro.errors import MoestroError, PortTaken, UsageError
from moestro.hardware.store import data_folder, write_whole

SLACK_SECONDS = 2.0
"""How far two readings of a process's start may lie apart, where it is read from a clock."""

MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Record:
    """`started_at` is when the process began, in seconds since the epoch: a number may be given to
    another process later. `started_ticks` says the same on Linux, in the kernel's ticks since it
    booted, which no change of the clock moves. `files` are the model's, with their whole paths.
    `log` is where its engines' words go, None if nowhere. `key` lets this user's other commands do
    everything there; the file is for this user alone."""

    pid: int
    started_at: float
    url: str
    model: str
    target: str
    log: str | None
    key: str = field(repr=False)
    started_ticks: int | None = None
    files: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def holds(self, path: Path) -> bool:
        """Whether it serves from that file."""
        return str(path.resolve()) in self.files


def log_path(port: int) -> Path:
    return data_folder() / "logs" / f"{port}.log"


@contextmanager
def registered(
    url: str, model: str, target: str, log: Path | None, key: str, files: Sequence[Path] = ()
) -> Iterator[Callable[[str, Sequence[Path]], None]]:
    """This process serves there, for as long as the context lasts. What it gives is to be told when
    it serves another model from other files. A folder that cannot be written costs nothing but
    `status`, `stop` and `logs`."""
    import psutil

    record = Record(
        pid=os.getpid(),
        started_at=float(psutil.Process().create_time()),
        url=url,
        model=model,
        target=target,
        log=None if log is None else str(log),
        key=key,
        started_ticks=_ticks(os.getpid()),
        files=_whole(files),
    )
    path = _folder() / f"{record.port}.json"
    with contextlib.suppress(OSError):
        _write(path, record)

    def renew(model: str, files: Sequence[Path]) -> None:
        nonlocal record
        record = replace(record, model=model, files=_whole(files))
        with contextlib.suppress(OSError):
            _write(path, record)

    try:
        yield renew
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


def listen(host: str, port: int) -> socket.socket:
    """Like `gateway.server.bind`, which knows nothing of the services of this user."""
    from moestro.gateway.server import bind

    try:
        return bind(host, port)
    except PortTaken as taken:
        for record in running():
            if record.port == port:
                raise PortTaken(
                    f"Port {port} is taken by moestro, which serves {record.model} "
                    f"(process {record.pid}).",
                    hint=f"moestro stop --port {port} ends it; or choose another port with --port "
                    "(0 takes a free one).",
                ) from taken
        raise


KEY_VARIABLES = ("MOESTRO_API_KEY", "OPENAI_API_KEY")


def key_for(url: str) -> str | None:
    """What to show at an endpoint: the key of the service of this user that has that address, or
    what the environment holds for others. None sends none.

    A service is known by its address, and not as “localhost”: that may lead to somebody else, who
    listens at the same port of ::1.
    """
    asked = urlsplit(url)
    for record in running():
        its = urlsplit(record.url)
        if (asked.scheme, asked.hostname, asked.port) == (its.scheme, its.hostname, its.port):
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
    except (psutil.Error, ValueError, OverflowError):
        return False
    if ended:
        return False
    if record.started_ticks is not None:
        return _ticks(record.pid) == record.started_ticks
    return abs(created - record.started_at) < SLACK_SECONDS


def _ticks(pid: int) -> int | None:
    """When a process began, from /proc; None where there is none."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
        return int(said.rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _whole(files: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(path.resolve()) for path in files)


def _read(path: Path) -> Record | None:
    """None for a file that is gone, damaged or of another version."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MOST_BYTES))
        record = Record(
            int(data["pid"]),
            float(data["started_at"]),
            str(data["url"]),
            str(data["model"]),
            str(data["target"]),
            None if data["log"] is None else str(data["log"]),
            str(data["key"]),
            None if data["started_ticks"] is None else int(data["started_ticks"]),
            tuple(str(file) for file in data["files"]),
        )
        known = record.port > 0  # a ValueError where it is no port at all
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return record if known else None


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(record)).encode())
