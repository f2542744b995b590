"""Compares forecasts with the tokens per second that `speed_truth` measured.

    python -m bench.planner.speed_error [--set test] [--stored] [--calibrate] [--breakdown PART …]

Forecasts see a model's header and the machine's calibration, nothing else: headers are written anew
from the case list, without weights. `--calibrate` measures what the cases need and was not measured
yet, and stores it beside the results.

On a shared machine the same kernel takes half as long again when a neighbour uses the other half
of a core, for minutes, and nothing tells. So `speed_truth` measures the kernels of each case just
before it, and forecasts use those; with `--stored` they use one calibration for all cases, as a
user's do.

Truth is what `speed_truth` calls calm: the machine while nobody disturbs it. The
noise beside the error is the mean deviation of the single figures from their median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.shapes import write_header

from bench.planner.cases import MODELS, SETS, Case
from bench.planner.kernel_rates import RESULTS, load_rates, rates_path
from moestro.engine.llama_cpp.calibrate import AttentionShape, calibrate
from moestro.model import ModelSpec, read_model
from moestro.planning.placement import HOST
from moestro.planning.rates import AttentionRates, KernelRates
from moestro.planning.speed import Passes
from moestro.planning.work import Pass, attention_shapes, product_types

TARGETS = {"decode": (0.10, 0.20), "prefill": (0.15, 0.30)}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one case; rates in tokens per second."""

    case: str
    what: str
    forecast: float
    truth: float
    noise: float | None
    figures: int

    @property
    def error(self) -> float:
        return self.forecast / self.truth - 1


def headers(cases: Iterable[Case], folder: Path) -> dict[str, ModelSpec]:
    specs = {}
    for name in sorted({case.model for case in cases}):
        model = MODELS[name]
        path = write_header(model.make(), folder / f"{name}.gguf", types=model.types())
        specs[name] = read_model(path)
    return specs


def measure_missing(cases: Iterable[Case], specs: dict[str, ModelSpec]) -> None:
    """One calibration for each number of threads, of the types and heads that are not known."""
    types: dict[int, set[str]] = {}
    attention: dict[int, set[AttentionShape]] = {}
    for case in cases:
        spec, cache = specs[case.model], case.cache_type.upper()
        types.setdefault(case.threads, set()).update(product_types(spec))
        attention.setdefault(case.threads, set()).update(attention_shapes(spec, cache, cache))
    for threads, wanted in types.items():
        known = load_rates(threads)
        have = known.types if known else {}
        heads = {_shape(a) for a in known.attention} if known else set()
        new_types, new_heads = sorted(wanted - set(have)), sorted(attention[threads] - heads)
        if not new_types and not new_heads:
            continue
        rates = calibrate(threads, new_types, new_heads, known=known, progress=print)
        rates_path(threads).write_text(json.dumps(rates.to_json()) + "\n")


def _shape(rates: AttentionRates) -> AttentionShape:
    return rates.key, rates.value, rates.type_k, rates.type_v, rates.kv_heads


def rows_of(case: Case, entry: dict[str, Any], forecasts: list[Passes]) -> list[Row]:
    """`forecasts` differ in when the kernels were measured; the middle one counts."""
    rows = []
    decode, prefill = entry["decode"], entry["prefill"]
    if decode["calm"] is not None:
        steps = [passes.decode(decode["depth"], case.streams) for passes in forecasts]
        rate = statistics.median(case.streams / step.seconds for step in steps)
        rows.append(_row(case, "decode", rate, decode))
    if prefill is not None and prefill["calm"] is not None:
        times = [passes.prompt_seconds(case.prompt) for passes in forecasts]
        rate = statistics.median(case.prompt / seconds for seconds in times if seconds)
        rows.append(_row(case, "prefill", rate, prefill))
    return rows


def rates_of(entry: dict[str, Any], stored: KernelRates) -> list[KernelRates]:
    """Those of each round, where it has some: the stored ones with what was measured anew."""
    found = []
    for round_ in entry["rounds"]:
        newer = {**stored.to_json(), **round_["rates"]}
        found.append(stored.merged(KernelRates.from_json(newer)))
    return found


def _row(case: Case, what: str, forecast: float, truth: dict[str, Any]) -> Row:
    return Row(case.name, what, forecast, truth["calm"], truth["noise"], len(truth["calm_each"]))


def breakdown(case: Case, passes: Passes, depth: int) -> str:
    lines = []
    step = passes.decode(depth, case.streams)
    batch = min(case.prompt, case.settings.ubatch)
    prefill = passes.cost(Pass(batch, 1, 0, 1))
    for what, cost in (("decode step", step), (f"prefill of {batch}", prefill)):
        kinds = sorted(cost.by_kind.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{kind} {seconds * 1e3:.2f}" for kind, seconds in kinds)
        lines.append(f"    {what}: {cost.seconds * 1e3:.2f} ms = {parts}")
        if cost.unknown:
            lines.append(f"    not measured: {', '.join(sorted(cost.unknown))}")
    return "\n".join(lines)


def summary(rows: list[Row], what: str) -> dict[str, float]:
    errors = sorted(abs(row.error) for row in rows if row.what == what)
    noises = [row.noise for row in rows if row.what == what and row.noise is not None]
    return {
        "cases": len(errors),
        "median": statistics.median(errors),
        "p90": errors[min(len(errors) - 1, round(0.9 * (len(errors) - 1)))],
        "worst": errors[-1],
        "median_signed": statistics.median(row.error for row in rows if row.what == what),
        "noise": statistics.median(noises) if noises else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default="test")
    parser.add_argument("--calibrate", action="store_true", help="measure what is missing")
    parser.add_argument("--breakdown", nargs="*", help="show the parts of these cases")
    parser.add_argument("--stored", action="store_true", help="forecast from one calibration")
    parser.add_argument("--truth", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        specs = headers(SETS[options.set], Path(folder))
        if options.calibrate:
            measure_missing(SETS[options.set], specs)
        truth_file = options.truth or RESULTS / f"speed_truth_{options.set}.json"
        truth = json.loads(truth_file.read_text())
        cases = [case for case in SETS[options.set] if case.name in truth["cases"]]
        for case in cases:
            measured = load_rates(case.threads)
            if measured is None:
                print(f"{case.name}: no calibration for {case.threads} threads")
                continue
            entry = truth["cases"][case.name]
            kernels = [measured] if options.stored else rates_of(entry, measured)
            spec = specs[case.model]
            forecasts = [Passes(spec, case.settings, {HOST: rates}) for rates in kernels]
            passes = forecasts[0]
            found = rows_of(case, entry, forecasts)
            rows += found
            for row in found:
                noise = "" if row.noise is None else f"±{row.noise:.0%}"
                print(
                    f"{row.case:44} {row.what:16} {row.forecast:8.1f} against {row.truth:8.1f}"
                    f"  {row.error:+6.1%} {noise} of {row.figures}"
                )
            wanted = options.breakdown
            if wanted is not None and (not wanted or any(part in case.name for part in wanted)):
                print(breakdown(case, passes, entry["decode"]["depth"]))
    result: dict[str, Any] = {"truth_machine": truth.get("machine"), "rows": []}
    for what in dict.fromkeys(row.what for row in rows):
        figures = result[what] = summary(rows, what)
        goal = TARGETS.get(what)
        target = f" (goal {goal[0]:.0%}, {goal[1]:.0%})" if goal else ""
        print(
            f"{what}: {figures['cases']} cases, error median {figures['median']:.1%}, "
            f"90th percentile {figures['p90']:.1%}{target}, worst {figures['worst']:.1%}, "
            f"median with sign {figures['median_signed']:+.1%}, noise {figures['noise']:.1%}"
        )
    result["rows"] = [
        {"case": row.case, "what": row.what, "forecast": round(row.forecast, 2),
         "truth": row.truth, "error": round(row.error, 4), "noise": row.noise}
        for row in rows
    ]  # fmt: skip
    stored = "_stored" if options.stored else ""
    output = RESULTS / f"speed_error_{options.set}{stored}.json"
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
