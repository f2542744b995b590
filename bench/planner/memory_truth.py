"""What memory the engine really takes: its buffers from its log, and the process from the system.

    python -m bench.planner.memory_truth --models DIR [--count 120] [--seed 1] [--output FILE]

Models are the runnable tiny ones of every architecture and random-weight ones of true size (see
`cases`); the settings of each are drawn at random, the same ones for the same seed. Everything is
loaded for real, one engine after another. The log prints MiB with two digits, so each buffer is
known to 5 KiB and `bytes` is that figure; the process's memory comes from /proc, after loading and
after every stream has read a prompt of one whole batch (of at most 256 tokens by one stream, for
models of true size). A call that was stopped is continued by the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

from tests.tiny_models import TINY, write_tiny

from bench.planner.cases import MODELS
from bench.planner.completions import complete
from bench.planner.machine import describe
from bench.planner.speed_truth import RESULTS, prompt_of
from moestro.engine.child import parse_report, request_to_json
from moestro.engine.protocol import EngineRequest
from moestro.model import ModelSpec, read_model
from moestro.planning.settings import CacheType, FlashAttention, Settings

CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536)
STREAMS = (1, 2, 4, 8, 16)
CACHE_TYPES: tuple[CacheType, ...] = ("f16", "q8_0", "q4_0")
UBATCHES = (128, 256, 512, 1024, 2048)
SHORT_ROWS = (
    "llama",
    "qwen2",
    "mixtral",
    "qwen2moe",
    "olmoe",
    "granitemoe",
    "lfm2moe",
    "deepseek2",
)
"""Tiny models whose heads have fewer values than a block of a quantized cache."""

CACHE_LIMIT_BYTES = 3 << 30
SCORES_LIMIT_BYTES = 1 << 30
"""Of the attention scores of one layer, which exist in full without flash attention."""

LONGEST_PROMPT = 256  # for true sizes: a longer one takes half a minute
START_SECONDS = 120.0

GRAPH = re.compile(r"graph: nodes = (\d+)")
BUFFER = re.compile(r"(\S+) +(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
TRUE_SIZES = (
    "qwen3moe-1.6b-Q4_K_M",
    "mixtral-1.5b-Q4_0",
    "qwen35moe-2.2b-Q4_K_M",
    "qwen35-0.8b-Q8_0",
    "deepseek2-2b-Q5_K_M",
    "gpt-oss-2.2b-MXFP4",
    "llama-1.2b-Q4_K_M",
    "llama-3.2b-Q4_K_M",
    "qwen3-0.6b-F16",
    "gemma3-1b-Q4_0",
    "granitemoe-1.3b-Q5_K_M",
    "lfm2moe-1.6b-Q4_K_M",
    "smollm-0.1b-Q8_0",
    "dev-gemma3-0.4b-IQ4_XS",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    api_key: str


def questions(folder: Path, models: Path, count: int, seed: int) -> Iterator[tuple[Path, Settings]]:
    """Files and settings, each model as often as any other."""
    files = [write_tiny(name, folder) for name in TINY]
    files += [MODELS[name].write(models) for name in TRUE_SIZES]
    specs = {path: read_model(path) for path in files}
    draw = random.Random(seed)
    for number in range(count):
        path = files[number % len(files)]
        cache_types = CACHE_TYPES
        if path.stem.removeprefix("tiny-") in SHORT_ROWS:
            cache_types = CACHE_TYPES[:1]
        while True:
            settings = _settings(specs[path], draw, cache_types)
            if _affordable(specs[path], settings):
                break
        yield path, settings


def _settings(spec: ModelSpec, draw: random.Random, cache_types: Sequence[CacheType]) -> Settings:
    cache_type = draw.choice(cache_types)
    # The engine refuses a quantized cache of values without flash attention.
    attention = draw.choice(get_args(FlashAttention) if cache_type == "f16" else ("auto", "on"))
    return Settings(
        context=draw.choice(CONTEXTS),
        parallel=draw.choice(STREAMS),
        threads=2,
        ubatch=draw.choice(UBATCHES),
        cache_type_k=cache_type,
        cache_type_v=cache_type,
        flash_attention=attention,
        mtp_depth=draw.choice((0, 1, 3)) if spec.mtp_layers else 0,
    )


def _affordable(spec: ModelSpec, settings: Settings) -> bool:
    cache_bytes = spec.cache_bytes(settings.context, settings.parallel, ubatch=settings.ubatch)
    if (cache_bytes or 0) > CACHE_LIMIT_BYTES:
        return False
    heads = max((spec.embedding_length or 1024) // 32, 4)
    scores_bytes = settings.context * settings.parallel * settings.ubatch * heads * 4
    return settings.flash_attention != "off" or scores_bytes < SCORES_LIMIT_BYTES


async def measure(path: Path, settings: Settings) -> dict[str, Any]:
    """Buffers and process memory of one engine. An engine that refuses is recorded with its log."""
    spec = read_model(path)
    with tempfile.TemporaryFile() as log:
        request = EngineRequest(path, path.stem, settings)
        endpoint, child = await asyncio.to_thread(_start, request, log)
        found: dict[str, Any] = {
            "model": path.stem,
            "architecture": spec.architecture,
            "file_bytes": sum(file.size_bytes or 0 for file in spec.files),
            "settings": settings.to_json(),
        }
        try:
            if endpoint is None:
                log.seek(0)
                return found | {"refused": log.read().decode(errors="replace")[-800:]}
            loaded = process_memory(child.pid)
            most = settings.ubatch if spec.parameters < 1e8 else LONGEST_PROMPT
            tokens = min(settings.ubatch, most, settings.context - 8)
            vocabulary = next(t.shape[1] for t in spec.tensors if t.name == "token_embd.weight")
            await asyncio.gather(
                *(
                    complete(endpoint, prompt_of(tokens, vocabulary), 4)
                    for _ in range(settings.parallel if spec.parameters < 1e8 else 1)
                )
            )
            used = process_memory(child.pid)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            await asyncio.to_thread(child.wait)
        log.seek(0)
        buffers = buffers_of(log.read().decode(errors="replace"))
    return found | {
        "buffers": buffers,
        "total_bytes": sum(buffer["bytes"] for buffer in buffers),
        "process_after_load": loaded,
        "process_after_prompt": used,
        "prompt_tokens": tokens,
    }


def _start(
    request: EngineRequest, log: IO[bytes]
) -> tuple[Endpoint | None, subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.planner.memory_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    key = secrets.token_urlsafe(16)
    child.stdin.write(json.dumps({**request_to_json(request), "api_key": key}).encode() + b"\n")
    child.stdin.flush()
    for line in child.stdout:
        if (report := parse_report(line)) is not None:
            return Endpoint(str(report["address"]), key), child
    return None, child


def buffers_of(log: str) -> list[dict[str, Any]]:
    """The buffers that a log tells of, in its order.

    `owner` is "model", or "context 0" for the trunk's and "context 1" for a draft's. A context that
    plans its graph again says so again, without its name: the size of the graph tells which one it
    is, and the last figure counts.
    """
    buffers: dict[tuple[str, str, str, int], int] = {}
    context = -1
    seen_caches = 0
    nodes: dict[int, int] = {}
    planned: list[tuple[str, int]] = []
    for line in log.splitlines():
        if "constructing llama_context" in line:
            context += 1
            seen_caches = 0
        if (graph := GRAPH.search(line)) is not None:
            count = int(graph[1])
            nodes.setdefault(context, count)
            planner = min(nodes, key=lambda known: abs(nodes[known] - count))
            for device, size in planned:
                buffers[f"context {planner}", device, "compute", 0] = size
            planned.clear()
        if (match := BUFFER.search(line)) is None:
            continue
        device, kind, mib = match.groups()
        size = round(float(mib) * 2**20)
        if kind == "compute":
            planned.append((device, size))
            continue
        owner = "model" if kind == "model" else f"context {context}"
        number = 0
        if kind in ("KV", "model"):  # one for each part: full and windowed layers, mapped files
            number = seen_caches
            seen_caches += 1
        buffers[owner, device, kind.lower(), number] = size
    return [
        {"owner": owner, "device": device, "kind": kind, "bytes": size}
        for (owner, device, kind, _), size in buffers.items()
    ]


def process_memory(pid: int) -> dict[str, int]:
    """Bytes: resident now, and at most ever, of this process."""
    text = Path(f"/proc/{pid}/status").read_text()
    wanted = {
        "VmRSS": "resident_bytes",
        "RssAnon": "anonymous_bytes",
        "RssFile": "file_bytes",
        "VmHWM": "peak_bytes",
    }
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE)
    return {wanted[name]: int(kib) * 1024 for name, kib in found if name in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "memory_truth.json")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    results = load(options.output)
    if results.get("seed") != options.seed:
        results = {"machine": describe(), "seed": options.seed, "entries": []}
    entries = results["entries"]
    with tempfile.TemporaryDirectory() as folder:
        asked = questions(Path(folder), options.models, options.count, options.seed)
        for number, (path, settings) in enumerate(asked):
            if number < len(entries):
                continue  # from a call that was stopped
            entry = asyncio.run(measure(path, settings))
            entries.append(entry)
            save(options.output, results)
            outcome = entry.get("total_bytes", "refused")
            print(f"{path.stem:26} {outcome:>13} {_brief(settings)}", flush=True)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, results: dict[str, Any]) -> None:
    results["date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({key: value for key, value in results.items() if key != "entries"})
    lines = ",\n".join(json.dumps(entry) for entry in results["entries"])
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head[:-1]},\n"entries": [\n{lines}\n]}}\n')
    partial.replace(path)


def _brief(settings: Settings) -> str:
    return (
        f"context {settings.context} × {settings.parallel}, {settings.cache_type_k}, "
        f"ubatch {settings.ubatch}, attention {settings.flash_attention}, mtp {settings.mtp_depth}"
    )


if __name__ == "__main__":
    main()
