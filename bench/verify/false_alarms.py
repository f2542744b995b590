"""Does verify leave clean quantizations alone, whatever the text?

    python -m bench.verify.false_alarms [--only MODEL …] [--texts N]

Q8_0, Q6_K, Q5_K_M and Q4_K_M, made by llama-quantize from F16, of the demo model and of the
upcycled SmolLM2, on twenty texts that neither was trained for. Every finding of severity warn or
worse is a false alarm. The demo reads each text four times; the upcycled ones are slow, so each
text is read by one of their quantizations, in turn. All figures are kept too: limits are set from
how they scatter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cache import cache_folder
from bench.verify.models import CLEAN, NAMES, clean, f16
from bench.verify.running import against, alarms, figures, recorded, rounded
from bench.verify.texts import Text, twenty_texts
from moestro.verify.corpus import CHUNK_TOKENS, Passage
from moestro.verify.subject import Options

RESULTS = Path(__file__).parent / "results"
CHUNKS = {"demo": 16}
SLOW_CHUNKS = 4
"""Of an upcycled model: four chunks take it half a minute."""


def options_for(model: str) -> Options:
    chunks = CHUNKS.get(model, SLOW_CHUNKS)
    generations = 8 if model == "demo" else 0
    return Options(tokens=chunks * CHUNK_TOKENS, generations=generations)


def labels_for(model: str, number: int) -> Sequence[str]:
    """All on each text for the demo; one after the other, a text each, for the slow ones."""
    return CLEAN if model in CHUNKS else (CLEAN[number % len(CLEAN)],)


def run(model: str, text: Text, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Some quantizations on one text; the reference runs once for all."""
    passages = [Passage(text.name, text.content)]
    options = options_for(model)
    reference = recorded(f16(model), f"alarm-{model}-{text.name}", passages, options)
    rows = []
    for label in labels:
        found = against(reference, clean(model, label), passages, options)
        rows.append(
            {
                "model": model,
                "quantization": label,
                "text": text.name,
                "verdict": str(found.verdict),
                "alarms": alarms(found),
                "figures": figures(found),
            }
        )
    reference.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--again", action="store_true", help="also texts that are there")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "false_alarms.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    cache_folder().joinpath("references").mkdir(exist_ok=True)
    texts = twenty_texts(200_000)[:: 20 // options.texts][: options.texts]
    for model in options.only:
        for number, text in enumerate(texts):
            own = [row for row in rows if (row["model"], row["text"]) == (model, text.name)]
            if own and not options.again:
                continue
            rows = [row for row in rows if row not in own]
            new = [rounded(row) for row in run(model, text, labels_for(model, number))]
            rows += new
            kept.write_text(json.dumps(rows, indent=1) + "\n")
            for row in new:
                codes = ", ".join(alarm["code"] for alarm in row["alarms"])
                seen = row["figures"]
                print(
                    f"{model:10} {row['quantization']:7} {text.name:16} {row['verdict']:4} "
                    f"kld {seen['kld_mean'][0]:.4f} p99 {seen['kld_p99']:.3f} "
                    f"overlap {seen['overlap'][0]:.4f} worst {seen['worst_layer_overlap'][0]:.4f} "
                    f"{codes}",
                    flush=True,
                )
    alarmed = sum(bool(row["alarms"]) for row in rows)
    print(f"{alarmed} false alarms in {len(rows)} runs")


if __name__ == "__main__":
    main()
