"""Asks every peer every question and records the answers.

    python -m bench.planner.peers --install --folder ~/.cache/moestro-peers

Environments and model headers (sparse files) live in the folder, a temporary one by default.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.planner.answers import Answer
from bench.planner.model_files import MODELS
from bench.planner.peers.environments import ask, install, python_version
from bench.planner.peers.registry import LEFT_OUT, PEERS, Peer
from bench.planner.questions import QUESTIONS, Question

RESULTS = Path(__file__).parent.parent / "results" / "peers.json"


def as_peers_get_it(question: Question, models: Path) -> dict[str, Any]:
    """A question with everything that a user of any peer would have at hand."""
    model = MODELS[question.model]
    path = model.write(models)
    return {
        **asdict(question),
        "hub": model.hub,
        "quantization": model.quantization,
        "parameters": model.shape().parameters,
        "gguf": str(path),
        "folder": str(path.parent),
        "file_bytes": path.stat().st_size,
    }


def answers_of(peer: Peer, folder: Path, asked: list[dict[str, Any]]) -> dict[str, Any]:
    said = ask(peer, folder / "environments", asked)
    # The place of the files is this run's, not the peer's answer.
    clean = json.loads(json.dumps(said).replace(json.dumps(str(folder))[1:-1], "…"))
    answers = [Answer.from_json(each).to_json() for each in clean]
    return {
        "version": peer.requirement.partition("==")[2],
        "package": peer.requirement,
        "reads": peer.reads,
        "answers": dict(zip((q.name for q in QUESTIONS), answers, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--install", action="store_true", help="create the environments first")
    parser.add_argument("--folder", type=Path, help="where environments and headers are kept")
    parser.add_argument("--only", nargs="*", choices=[*PEERS], default=[*PEERS], metavar="PEER")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).expanduser().resolve()
        asked = [as_peers_get_it(question, folder / "models") for question in QUESTIONS]
        found: dict[str, Any] = {}
        for name in options.only:
            if options.install:
                print(f"installing {PEERS[name].requirement}", file=sys.stderr)
                try:
                    install(PEERS[name], folder / "environments")
                except RuntimeError as error:
                    print(f"{name}: {error}", file=sys.stderr)
            print(f"asking {name}", file=sys.stderr)
            found[name] = answers_of(PEERS[name], folder, asked)
    if options.out.exists() and len(options.only) < len(PEERS):  # the others' answers stay
        found = json.loads(options.out.read_text(encoding="utf-8"))["peers"] | found
    recorded = {
        "command": "python -m bench.planner.peers --install",
        "date": datetime.now(UTC).date().isoformat(),
        "python": python_version(),
        "left_out": LEFT_OUT,
        "peers": {name: found[name] for name in PEERS if name in found},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
