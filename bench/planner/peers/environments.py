"""A virtual environment per peer, so that none meets another's dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from bench.planner.peers.registry import Peer

ASK = Path(__file__).with_name("ask.py")
SECONDS_PER_PEER = 300


def python_of(peer: Peer, folder: Path) -> Path:
    return folder / peer.name / "bin" / "python"


def install(peer: Peer, folder: Path) -> None:
    """Raises `RuntimeError` with pip's last words."""
    python = python_of(peer, folder)
    if not python.exists():
        venv.create(python.parent.parent, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", peer.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])


def ask(peer: Peer, folder: Path, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The peer's answers in order; a peer that does not run gives its reason to each question."""
    python = python_of(peer, folder)
    if not python.exists():
        return _failed("not installed: run with --install", questions)
    try:
        done = subprocess.run(
            [str(python), str(ASK), str(peer.path)],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_PEER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(f"no answer within {SECONDS_PER_PEER} s", questions)
    if done.returncode != 0:
        return _failed((done.stderr.strip().splitlines() or ["no words"])[-1], questions)
    return list(json.loads(done.stdout))


def _failed(reason: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"failed": reason} for _ in questions]


def python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])
