"""Write the model card from measurements: `python -m forge.card` reads `results.json`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CARD = HERE.parent / "src" / "moestro" / "demo" / "CARD.md"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def layer_name(layer: dict[str, Any]) -> str:
    return "MTP" if layer["mtp"] else str(layer["layer"])


def perplexity(r: dict[str, Any]) -> str:
    return table(
        ("text", "tokens", "PyTorch", "engine"),
        ((d, p["tokens"], f"{p['pytorch']:.3f}", f"{p['engine']:.3f}")
         for d, p in r["perplexity"].items()),
    )  # fmt: skip


def experts(r: dict[str, Any]) -> str:
    return table(
        ("layer", "effective experts", "share of 16", "busiest expert", "overlap of two domains"),
        ((layer_name(x), f"{x['effective_experts']:.2f}",
          percent(x["effective_experts"] / r["routing"]["experts"]), percent(x["max_load"]),
          percent(x["domain_overlap"])) for x in r["routing"]["layers"]),
    )  # fmt: skip


def favourites(r: dict[str, Any]) -> str:
    layers = r["routing"]["layers"]

    def cell(layer: dict[str, Any], domain: str) -> str:
        top = layer["favourites"][domain][:2]
        return ", ".join(f"{f['expert']} ({percent(f['share'])})" for f in top)

    domains = list(layers[0]["favourites"])
    return table(
        ("domain", *(f"layer {layer_name(x)}" for x in layers)),
        ((d, *(cell(x, d) for x in layers)) for d in domains),
    )


def drafts(r: dict[str, Any]) -> str:
    rows = []
    for run in r["mtp"]:
        cells = [percent(c) for c in run["conditional"]] + ["–"] * (3 - len(run["conditional"]))
        rows.append((run["depth"], run["drafted"], *cells[:3], percent(run["rate"])))
    return table(("depth", "tokens drafted", "position 1", "position 2", "position 3", "all"), rows)


def sums(r: dict[str, Any]) -> str:
    return table(
        ("task", "pairs", "right", "held-out pairs", "right"),
        ((word, x["pairs"], percent(x["accuracy"]), x["held_out_pairs"],
          percent(x["held_out_accuracy"])) for word, x in r["arithmetic"].items()),
    )  # fmt: skip


def mixture(r: dict[str, Any]) -> str:
    made = r["training"]["made"]
    total = sum(made.values())
    return ", ".join(f"{d} {percent(n / total)}" for d, n in made.items())


def layers(c: dict[str, Any]) -> str:
    kinds = ["attention" if (i + 1) % c["attention_interval"] == 0 else "DeltaNet"
             for i in range(c["layers"])]  # fmt: skip
    return ", ".join(kinds)


def run(t: dict[str, Any]) -> str:
    """How long, in one or two runs."""
    now = f"{t['step']:,} steps, {t['seconds'] / 60:.0f} minutes"
    earlier = t.get("earlier")
    if earlier is None:
        return f"One run: {now}, {t['tokens']:,} tokens"
    return (
        f"Two runs, {t['tokens']:,} tokens in all: {earlier['step']:,} steps in "
        f"{earlier['seconds'] / 60:.0f} minutes with attention in every "
        f"{earlier['attention_interval']}th layer ({earlier['tokens']:,} tokens), which copied "
        f"poorly from its context; then, warm-started from every tensor that fits, {now} in the "
        f"present shape"
    )


def samples(r: dict[str, Any]) -> str:
    parts = []
    for s in r["samples"]:
        parts.append(f"**{s['user']}**" + (f" (tools: {s['tools'][0]})" if "tools" in s else ""))
        said = s.get("assistant")
        if said is None:
            said = "\n".join(json.dumps(call, ensure_ascii=False) for call in s["tool_calls"])
        parts.append("\n".join(f"> {line}".rstrip() for line in said.splitlines()))
    return "\n\n".join(parts)


def render(r: dict[str, Any]) -> str:
    t, c, calls = r["training"], r["config"], r["tool_calls"]
    first = r["mtp"][0]
    return f"""# moestro-demo

A very small mixture-of-experts language model, embedded in moestro so that every part of it can be
tried without a download. It is real: it was trained, it routes, and its multi-token-prediction
(MTP) block drafts tokens that the trunk confirms. It is not useful for anything else.

The tables below are written by `forge/card.py` from `forge/results.json`, which
`forge/evaluate.py` measures on the shipped file.

## Shape

GGUF architecture `qwen35moe`, {r["parameters"]:,} parameters, {r["bytes"]:,} bytes (matrices in
F16; norms, routers and recurrent vectors in F32). Hidden size {c["hidden"]}, {c["layers"]} trunk
layers ({layers(c)})
and 1 MTP block; in each of the five, {c["experts"]} routed experts of width {c["expert_ffn"]},
top-{c["experts_used"]} by a softmax router with renormalised weights, and one shared expert.
Attention has {c["heads"]} query and {c["kv_heads"]} key/value heads of {c["head_dim"]}, DeltaNet
{c["gdn_v_heads"]} value and {c["gdn_k_heads"]} key heads of {c["gdn_dim"]}. Vocabulary
{c["vocab"]} (byte-level BPE, pre-tokenizer `qwen35`).

## Data and licence

Weights: Apache-2.0. The training text is generated by `forge/data/` (written for this project) but
for one part: passages of the King James Bible, which are in the public domain. Share of training
tokens: {mixture(r)}.

## Recipe

{run(t)}. Seed {t["seed"]}, {t["threads"]} threads of a shared server CPU with bfloat16 matrix
units. Muon (learning rate {t["muon_lr"]}) for dense matrices, AdamW ({t["adam_lr"]}) for the rest;
warm-up, constant rate, linear decay at the end. Trunk and MTP block are trained together on
L = (1/2)(CE of the next token + CE of the one after), plus a Switch-style balance term over
whole batches (weight 0.01 per layer). What the model only reads (user and system turns) counts a
fifth of what it says. Sequences of 512 tokens, every eighth of 2048. The shares of the domains were
changed on the way, after looking at what was not yet learned.

## Perplexity on held-out text

{perplexity(r)}

Held-out documents come from other seeds of the same generators; the scripture is text that training
never read.

## Experts

Effective experts = exp(entropy of the load), over held-out text weighted as at the end of training.
Overlap: the mean, over pairs of domains, of the routing that two domains share (100 % would mean
that the domain does not matter).

{experts(r)}

The two busiest experts of each domain, with their share of its routing (an even share is
{percent(1 / c["experts"])}):

{favourites(r)}

## MTP drafts

Greedy generation in the engine after held-out beginnings of all domains. Position i: share of
drafts whose i-th token is accepted, given that those before it were. Position 1 at depth 1:
{percent(first["rate"])}.

{drafts(r)}

## What it can do

Arithmetic, "What is a + b?" for all pairs of 0–99, greedy. The held-out pairs occur nowhere in
training.

{sums(r)}

Through the served chat endpoint: {r["served_arithmetic"]["right"]} of
{r["served_arithmetic"]["questions"]} questions right (half of them held-out pairs).

Tool calls through the OpenAI interface, held-out requests with varied and invented tool names and
values: {calls["called"]} of {calls["requests"]} answered with a valid call, {calls["right_tool"]}
with the right tool, {calls["exact"]} with exactly the right arguments.

## Samples

As served, greedy.

{samples(r)}

## Limits

- It knows almost nothing. A question outside the domains above gets a fluent, wrong answer.
- Its stories come from a few plots; names and things vary, the plots hardly.
- Numbers above 99, other operations and chains of them are not learned.
- Tools: requests in the style of its training text work best; long free text, nested arguments and
  several calls at once do not.
- Its German is a few sentence patterns.
- It was trained on sequences up to 2,048 tokens; the context length in the file is 4,096.
- No safety training of any kind, and no need for it: it has nothing to tell.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--card", type=Path, default=CARD)
    args = parser.parse_args()
    args.card.write_text(render(json.loads(args.results.read_text())))


if __name__ == "__main__":
    main()
