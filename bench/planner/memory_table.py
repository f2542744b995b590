"""Planners against the engine's allocator, in one table.

    python -m bench.planner.memory_table

Reads the peers' recorded answers (`python -m bench.planner.peers` renews them), asks the engine
for the truth and `moestro plan` for its own answer, and writes `results/memory_table.md` and
`.json`. Everything happens on model headers: no weights, no GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.planner.answers import Answer
from bench.planner.model_files import MODELS
from bench.planner.questions import DECIDING, MEMORY, Question
from bench.planner.truth import EngineStartFailed, Load, Machine, engine_truth, settings_of
from moestro.engine.llama_cpp.dry_run import DeviceMemory

RESULTS = Path(__file__).parent / "results"
PARTS = ("weights", "cache", "total")
MIB = 2**20


def ask_moestro(model: Path, question: Question) -> Answer:
    """`moestro plan --json`; its `other_bytes` (caches of the server) are not the engine's."""
    command = [
        sys.executable, "-m", "moestro", "plan", str(model), "--json",
        "--context", str(question.context), "--parallel", str(question.parallel),
        "--cache-type", question.cache_type, "--ubatch", str(question.ubatch), "--mtp", "0",
    ]  # fmt: skip
    if question.hardware is not None:
        command += ["--hardware", question.hardware.description]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        return Answer(failed=(done.stderr.strip().splitlines() or ["no words"])[-1][:300])
    plan = json.loads(done.stdout)
    sums = {
        f"{part}_bytes": sum(device[f"{part}_bytes"] for device in plan["memory"])
        for part in ("weights", "cache", "compute")
    }
    settings = plan["settings"]
    return Answer(
        **sums,
        total_bytes=sum(sums.values()),
        fits=plan["fits"],
        gpu_bytes=sum(d["total_bytes"] for d in plan["memory"] if d["device"] != "CPU") or None,
        cpu_expert_layers=settings.get("cpu_expert_layers"),
        gpu_layers=settings.get("gpu_layers"),
        decode_tokens_per_second=(plan.get("speed") or {}).get("decode_tokens_per_second"),
    )


# Memory ------------------------------------------------------------------------------------


def error(said: int | None, true: int) -> float | None:
    return None if said is None else (said - true) / true


def errors(answer: Answer, truth: DeviceMemory) -> dict[str, float | None]:
    return {
        part: error(getattr(answer, f"{part}_bytes"), getattr(truth, f"{part}_bytes"))
        for part in PARTS
    }


def percent(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 1:
        return f"**× {1 + value:.3g}**"
    shown = f"{value:+.1%}".replace("+0.0%", "0").replace("-0.0%", "0").replace("-", "−")
    return f"**{shown}**" if abs(value) > 0.05 else shown


def memory_row(found: dict[str, Any], name: str, asked: int) -> list[str]:
    cells = [name]
    for part in PARTS:
        known = [e[part] for e in found.values() if e[part] is not None]
        if not known:
            cells.append("–")
            continue
        worst = max(known, key=abs)
        typical = median(abs(value) for value in known)
        cells.append(f"{typical:.1%} · {percent(worst)} · {len(known)}/{asked}")
    return cells


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def memory_tables(
    truths: dict[str, DeviceMemory], answers: dict[str, dict[str, Answer]]
) -> tuple[str, dict[str, Any]]:
    found = {
        planner: {name: errors(said[name], truth) for name, truth in truths.items()}
        for planner, said in answers.items()
    }
    summary = table(
        ["planner", *(f"{part}: typical · worst error · answered" for part in PARTS)],
        [memory_row(each, planner, len(truths)) for planner, each in found.items()],
    )
    text = "## Memory: error against the engine's allocator\n\n" + summary
    for part in PARTS:
        key = f"{part}_bytes"
        rows = [
            [
                name,
                f"{getattr(truth, key) / MIB:,.1f}",
                *(percent(e[name][part]) for e in found.values()),
            ]
            for name, truth in truths.items()
        ]
        text += f"\n### {part.capitalize()}\n\n" + table(["question", "truth, MiB", *found], rows)
    return text, found


# Deciding ----------------------------------------------------------------------------------


def placed(machine: Machine, planner: str, answer: Answer) -> Load | None:
    """What the planner's own placement would take; None where it gives none."""
    if not answer.fits or answer.cpu_expert_layers is None:
        return None
    # moestro counts layers with experts, llama.cpp's flag counts blocks from 0.
    load: Callable[..., Load] = machine.load if planner == "moestro" else machine.load_by_flags
    if planner == "moestro":
        return load(cpu_expert_layers=answer.cpu_expert_layers, gpu_layers=answer.gpu_layers)
    return load(answer.cpu_expert_layers, answer.gpu_layers)


def verdict(machine: Machine, planner: str, answer: Answer, true_fits: bool) -> str:
    if answer.failed is not None:
        return "fails"
    if answer.fits is None:
        return "–"
    said = "yes" if answer.fits else "no"
    if answer.fits != true_fits:
        said = f"**{said}**"
    try:
        load = placed(machine, planner, answer)
    except EngineStartFailed:
        return f"{said}, **its flags are refused**"
    if load is None:
        return said
    if planner.startswith("ggufit"):
        said += f", -ngl {answer.gpu_layers}"
    else:
        said += f", {answer.cpu_expert_layers} on CPU"
    if load.gpu_free_bytes < 0:
        return f"{said}: **GPU over by {-load.gpu_free_bytes / MIB:,.0f} MiB**"
    if load.host_free_bytes < 0:
        return f"{said}: **host over by {-load.host_free_bytes / MIB:,.0f} MiB**"
    return f"{said}: {load.gpu_free_bytes / MIB:,.0f} MiB left"


def speed(answer: Answer) -> str:
    rate = answer.decode_tokens_per_second
    if not rate or answer.fits is False:
        return "–"
    expected, low, high = (rate.get(key) for key in ("expected", "low", "high"))
    if low is not None and high is not None:
        band = f"{low:.3g}–{high:.3g}"
        return f"{expected:.3g} ({band})" if expected is not None else band
    return f"{expected:.3g}"


def deciding_tables(
    models: Path, answers: dict[str, dict[str, Answer]]
) -> tuple[str, dict[str, Any]]:
    rows, speeds, record = [], [], {}
    for question in DECIDING:
        assert question.hardware is not None
        path = MODELS[question.model].write(models)
        with Machine(path, question, question.hardware) as machine:
            fewest = machine.fewest_cpu_expert_layers()
            if fewest is None:
                truth = "no"
            else:
                load = machine.load(cpu_expert_layers=fewest)
                truth = f"yes, {fewest} on CPU: {load.gpu_free_bytes / MIB:,.0f} MiB left"
            said = {
                planner: verdict(machine, planner, each[question.name], fewest is not None)
                for planner, each in answers.items()
            }
        rows.append([question.name, truth, *said.values()])
        speeds.append([question.name, *(speed(each[question.name]) for each in answers.values())])
        record[question.name] = {"fewest_cpu_expert_layers": fewest, "truth": truth, **said}
    text = "\n## Does it fit, and with how many layers' experts on the CPU?\n\n"
    text += table(["question", "truth", *answers], rows)
    text += "\n## Decode, tokens/s, as each says (nobody measured these machines here)\n\n"
    return text + table(["question", *answers], speeds), record


NOTES = """
Errors beyond 5 % and wrong verdicts are bold. The truth is the engine's dry run over the same file:
the whole model in host memory, or over a virtual GPU of the size that the driver reports, with
500 MiB of it left to the driver and 2 GiB of host memory to the system. Multi-token prediction is
off, so its block is not loaded: planners that take the file's size for the weights are 2 to 3 %
above it where the file has one. vLLM's planners were asked for their 4-bit types. “No” of a planner
that knows GPUs only means that the GPU alone is too small. moe-fit says yes to DeepSeek-V3 in
64 GiB because it would read experts from disk.
"""


def recorded_peers() -> dict[str, dict[str, Answer]]:
    recorded = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))["peers"]
    return {
        f"{name} {peer['version']}": {
            question: Answer.from_json(said) for question, said in peer["answers"].items()
        }
        for name, peer in recorded.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "memory_table.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        answers: dict[str, dict[str, Answer]] = {"moestro": {}}
        truths = {}
        for question in MEMORY + DECIDING:
            path = MODELS[question.model].write(models)
            answers["moestro"][question.name] = ask_moestro(path, question)
            if question in MEMORY:
                truths[question.name] = engine_truth(path, settings_of(question))
        answers |= recorded_peers()
        memory, memory_record = memory_tables(truths, answers)
        deciding, deciding_record = deciding_tables(models, answers)
    text = memory + deciding + NOTES
    options.out.write_text(text, encoding="utf-8")
    record = {
        "command": "python -m bench.planner.memory_table",
        "truth": {name: asdict(truth) for name, truth in truths.items()},
        "errors": memory_record,
        "deciding": deciding_record,
        "moestro": {name: answer.to_json() for name, answer in answers["moestro"].items()},
    }
    dumped = json.dumps(record, indent=1, ensure_ascii=False)
    options.out.with_suffix(".json").write_text(dumped + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
