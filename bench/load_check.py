"""Are `moestro bench`'s figures those of a known load generator?

    python -m bench.load_check                                # the demo model
    python -m bench.load_check --model FILE.gguf --concurrency 1
    python -m bench.load_check --url http://HOST:PORT         # an endpoint that runs already
    python -m bench.load_check --paced 200,20                 # one that only keeps time

guidellm and ours put the same prompts on the same endpoint, at the same concurrency and with the
same lengths of answers, in turns and each first as often as second; the endpoint is told not to use
its prompt cache. Printed are medians over the rounds and their ratios. guidellm lives in a virtual
environment of its own in the benches' cache, and is installed there by the first run.

An engine on the processor shares it with the load generator, and the heavier one of the two then
measures a slower engine: --threads 1 leaves it a core. `--paced F,G` serves answers whose first
token comes after F milliseconds and each further one after G more, so that the truth is known.

What is compared is defined alike: guidellm's `inter_token_latency_ms` of a request is our time per
token after the first (TPOT), its distribution over tokens has the same mean as our gaps (ITL).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from bench.cache import cache_folder
from moestro.load import Load, Target, calibrate, from_file, generate, random_scenario, summarise
from moestro.load.generate import DEFAULT_CHARACTERS_PER_TOKEN

GUIDELLM = "guidellm==0.8.1"
TORCH = "torch==2.13.0"
"""A build for processors; what pip takes by itself brings gigabytes for GPUs."""

NO_PROMPT_CACHE = {"cache_prompt": False}
FIGURES = (
    "TTFT mean, ms",
    "TTFT p50, ms",
    "ITL mean, ms",
    "TPOT mean, ms",
    "TPOT p50, ms",
    "latency mean, ms",
    "latency p50, ms",
    "output tokens/s",
)
Figures = dict[str, float]


def guidellm() -> Path:
    """The program, installed if it is not there."""
    folder = cache_folder() / "peers" / "guidellm"
    program = folder / "bin" / "guidellm"
    if not program.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", TORCH, GUIDELLM], check=True)
    return program


def theirs(url: str, model: str | None, prompts: Path, options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        backend = {
            "kind": "openai_http",
            "target": url,
            "model": model or "",
            "http2": False,
            "extras": {"body": {"temperature": 0.0, **NO_PROMPT_CACHE}},
        }
        command = [
            str(guidellm()), "run", "--backend", json.dumps(backend),
            "--profile", f"kind=concurrent,streams={options.concurrency}",
            "--constraint", f"kind=max_requests,count={options.requests}",
            "--data", f"kind=json_file,path={prompts}",
            "--output", f"kind=json,path={report}", "--disable-console",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, text=True)
        (found,) = json.loads(report.read_text())["benchmarks"]
    answers = found["requests"]["successful"]
    if len(answers) != options.requests:
        raise SystemExit(f"guidellm: {len(answers)} of {options.requests} requests were answered")
    first = [answer["time_to_first_token_ms"] for answer in answers]
    each = [answer["inter_token_latency_ms"] for answer in answers]
    whole = [answer["request_latency"] * 1000 for answer in answers]
    metrics = found["metrics"]
    return dict(zip(FIGURES, (
        statistics.mean(first), statistics.median(first),
        metrics["inter_token_latency_ms"]["successful"]["mean"],
        statistics.mean(each), statistics.median(each),
        statistics.mean(whole), statistics.median(whole),
        metrics["output_tokens_per_second"]["successful"]["mean"],
    ), strict=True))  # fmt: skip


def ours(url: str, model: str | None, prompts: Path, options: argparse.Namespace) -> Figures:
    load = Load(
        from_file(prompts),
        requests=options.requests,
        concurrency=options.concurrency,
        ignore_eos=True,
        options=NO_PROMPT_CACHE,
    )
    found = summarise(asyncio.run(generate(Target(url, model=model), load)))
    if found.requests != options.requests or not (found.ttft and found.latency):
        raise SystemExit(f"moestro: {found.errors} requests failed: {found.error_counts}")
    assert found.inter_token
    assert found.time_per_token
    assert found.output_tokens_per_second
    return dict(zip(FIGURES, (
        found.ttft.mean * 1000, found.ttft.p50 * 1000, found.inter_token.mean * 1000,
        found.time_per_token.mean * 1000, found.time_per_token.p50 * 1000,
        found.latency.mean * 1000, found.latency.p50 * 1000, found.output_tokens_per_second,
    ), strict=True))  # fmt: skip


@contextmanager
def served(options: argparse.Namespace) -> Iterator[str]:
    """The endpoint's address: the given one, or that of a service for as long as this lasts."""
    if options.url:
        yield options.url
        return
    if options.paced:
        with paced(*map(float, options.paced.split(","))) as url:
            yield url
        return
    context = (options.prompt_tokens + options.output_tokens) * 2
    command = [
        sys.executable, "-m", "moestro", "up", options.model, "--port", "0", "--json",
        "--parallel", str(options.concurrency), "--context", str(context), "--mtp", "0",
        *(["--threads", str(options.threads)] if options.threads else []),
    ]  # fmt: skip
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        text = ""
        while not (found := re.search(r"http://[0-9.]+:\d+", text)):
            line = service.stdout.readline()
            if not line:
                raise SystemExit(f"up ended before it was ready: {text}")
            text += line
        yield found[0]
    finally:
        service.send_signal(signal.SIGINT)
        service.wait(timeout=60)


@contextmanager
def paced(first_ms: float, gap_ms: float) -> Iterator[str]:
    """An endpoint in a process of its own that computes nothing and keeps time."""
    command = [sys.executable, "-m", "bench.paced_endpoint", str(first_ms), str(gap_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


async def write_prompts(target: Target, path: Path, options: argparse.Namespace) -> None:
    """For both: `output_tokens_count` is guidellm's word, `max_tokens` ours."""
    scenario = random_scenario(options.prompt_tokens, options.output_tokens)
    ratio = await calibrate(target, scenario) or DEFAULT_CHARACTERS_PER_TOKEN
    with path.open("w") as file:
        for session in islice(scenario.sessions(0, ratio), options.requests):
            (message,) = session.turns[0].messages
            tokens = options.output_tokens
            line = {"prompt": message["content"], "max_tokens": tokens,
                    "output_tokens_count": tokens}  # fmt: skip
            file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--url")
    parser.add_argument("--paced", metavar="F,G")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--output-tokens", type=int, default=64)
    options = parser.parse_args()
    guidellm()
    found: dict[str, list[Figures]] = {"guidellm": [], "moestro": []}
    with tempfile.TemporaryDirectory() as folder, served(options) as url:
        target = Target(url)
        prompts = Path(folder) / "prompts.jsonl"
        asyncio.run(write_prompts(target, prompts, options))
        model = None if options.url or options.paced else "default"
        ours(url, model, prompts, options)  # warm-up, for both
        for number in range(options.rounds):
            tools = [("guidellm", theirs), ("moestro", ours)]
            for name, measure in tools if number % 2 == 0 else reversed(tools):
                found[name].append(measure(url, model, prompts, options))
                print(f"round {number + 1}: {name}", file=sys.stderr)
    where = options.url or (f"paced {options.paced} ms" if options.paced else options.model)
    print(f"{where}: {options.rounds} rounds of {options.requests} requests, "
          f"{options.concurrency} at once, {options.prompt_tokens} tokens in and "
          f"{options.output_tokens} out")  # fmt: skip
    print(f"{'':18}{'guidellm':>12}{'moestro':>12}{'ratio':>8}   ratios of the rounds")
    for figure in FIGURES:
        a, b = ([one[figure] for one in found[name]] for name in ("guidellm", "moestro"))
        ratios = [mine / other for other, mine in zip(a, b, strict=True)]
        middle = statistics.median(b) / statistics.median(a)
        print(f"{figure:18}{statistics.median(a):12.2f}{statistics.median(b):12.2f}{middle:8.3f}"
              f"   {min(ratios):.3f} to {max(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
