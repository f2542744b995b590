"""Loopback servers for tests: a file server that counts what it serves, and a small hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """What a server does and what it did. `stop_after` cuts each answer off after so many bytes."""

    root: Path
    ranges: bool = True
    tag: bool = True
    status: int | None = None
    stop_after: int | None = None
    silent: threading.Event | None = None
    redirect_to: str | None = None
    lie_about_start: int = 0
    token: str | None = None
    task: str | None = None
    bytes_sent: int = 0
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        served = self.served
        path = unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        served.requests.append((self.command, path, asked))
        served.authorizations.append(self.headers.get("Authorization"))
        if served.silent is not None:
            served.silent.wait(30)
            self.close_connection = True
            return
        if served.status is not None:
            self.simple(served.status, b"no")
            return
        if served.redirect_to is not None:
            self.send_response(302)
            self.send_header("Location", served.redirect_to + path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if served.token is not None and self.headers.get("Authorization") != (
            f"Bearer {served.token}"
        ):
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith("/api/models/"):
            sized = "blobs=true" in urlsplit(self.path).query.lower()
            self.repository(path.removeprefix("/api/models/"), sized=sized)
            return
        self.file(path, asked, body=body)

    def simple(self, status: int, text: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def repository(self, name: str, *, sized: bool) -> None:
        """As the hub does, lengths are told only to those who ask for them."""
        folder = self.served.root / name
        if not folder.is_dir():
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        siblings: list[dict[str, Any]] = [
            {"rfilename": p.relative_to(folder).as_posix()}
            | ({"size": p.stat().st_size} if sized else {})
            for p in files
        ]
        info = {
            "_id": "1",
            "id": name,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "pipeline_tag": self.served.task,
            "siblings": siblings,
        }
        self.simple(200, json.dumps(info).encode(), "application/json")

    def file(self, path: str, asked: str | None, *, body: bool) -> None:
        served = self.served
        file = served.root / path.replace("/resolve/main", "").lstrip("/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = file.stat().st_size
        start, stop = 0, size
        partial = served.ranges and asked is not None and asked.startswith("bytes=")
        tag = f'"{tag_of(file)}"'
        condition = self.headers.get("If-Range")
        if condition is not None and condition != tag:
            partial = False
        if partial:
            assert asked is not None
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first)
            stop = min(int(last) + 1, size) if last else size
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if partial else 200)
        if partial:
            shown = start + served.lie_about_start
            self.send_header("Content-Range", f"bytes {shown}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes" if served.ranges else "none")
        if served.tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if body:
            self.send_part(file, start, stop)

    def send_part(self, file: Path, start: int, stop: int) -> None:
        served = self.served
        if served.stop_after is not None:
            stop = min(stop, start + served.stop_after)
            self.close_connection = True
        with file.open("rb") as data, contextlib.suppress(OSError):
            data.seek(start)
            while start < stop:
                chunk = data.read(min(1 << 16, stop - start))
                self.wfile.write(chunk)
                start += len(chunk)
                served.bytes_sent += len(chunk)


def tag_of(file: Path) -> str:
    """The SHA-256, as hubs use for tags; of large (sparse) files something shorter."""
    if file.stat().st_size > 64 << 20:
        return "large-" + str(file.stat().st_size)
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextlib.contextmanager
def serving(root: Path, **options: Any) -> Iterator[Served]:
    """A server of the files under `root` on a free loopback port, for as long as this lasts."""
    served = Served(root, **options)
    handler = type("BoundHandler", (Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        if served.silent is not None:
            served.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()
