"""A `llama-server` that loads nothing: it takes the arguments, answers a few questions, and does as
its `behaviour` says. It writes what it was told into a file beside itself."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
HELP = {
    name: (FOLDER / f"options_of_{name}.txt").read_text() + "\n draft-mtp ngram-simple\n"
    for name in ("llama.cpp", "ik_llama.cpp")
}
"""The options that real ones list in their `--help`."""

_PROGRAM = """
import json, os, sys, time
argv = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
behaviour = {behaviour!r}
if "--help" in argv:
    if behaviour == "hangs":
        time.sleep(60)
    if behaviour == "crashes":
        os.abort()
    print({help!r})
    sys.exit(0)
if "--version" in argv:
    open(os.path.join(here, "probed.json"), "w").write(json.dumps(dict(os.environ)))
    print("version: {version}\\nbuilt with something", file=sys.stderr)
    sys.exit(0)
if "--list-devices" in argv:
    print("Available devices:\\n  CUDA0: A card (1 MiB, 1 MiB free)")
    sys.exit(0)
key_file = argv[argv.index("--api-key-file") + 1]
told = {{
    "arguments": argv,
    "environment": dict(os.environ),
    "key": open(key_file).read(),
    "key_mode": os.stat(key_file).st_mode & 0o777,
    "key_file": key_file,
    "pid": os.getpid(),
}}
with open(os.path.join(here, "told.part"), "w") as file:
    json.dump(told, file)
os.rename(file.name, os.path.join(here, "told.json"))
print("said on stdout", flush=True)
if behaviour == "refuses":
    print("error loading model: it is blue", file=sys.stderr)
    sys.exit(1)
if behaviour == "silent":
    time.sleep(60)
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers.get("Authorization") == "Bearer " + told["key"].strip()
        if self.path == "/die":
            os.abort()
        context = 768 if allowed else 0
        body = json.dumps({{"default_generation_settings": {{"n_ctx": context}}}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", int(argv[argv.index("--port") + 1])), Handler).serve_forever()
"""


def write_server(
    folder: Path,
    *,
    family: str = "llama.cpp",
    version: str = "7 (abc)",
    behaviour: str = "serves",
    help_text: str | None = None,
) -> Path:
    """The program; it becomes a Python of its own kind at once, so its process is the server's."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "server.py"
    text = HELP[family] if help_text is None else help_text
    script.write_text(_PROGRAM.format(help=text, version=version, behaviour=behaviour))
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {script} "$@"\n')
    program.chmod(0o755)
    return program
