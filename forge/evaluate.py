"""Measure an exported model and write `results.json`: `python -m forge.evaluate`.

Everything is taken from runs: perplexity in PyTorch and in the engine, expert use per layer and
domain, acceptance of MTP drafts, arithmetic over every pair, tool calls and samples through the
engine's OpenAI endpoint. `python -m forge.card` turns the file into the model card.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer
from torch import Tensor

from forge import engine, export, tokenizer
from forge.data import DOMAINS, SHARES, arithmetic, chat, documents, tools
from forge.model import Demo

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
EVALUATION_SEED = 1000
TOKENS_PER_DOMAIN = 4096
WINDOW = 1024
DRAFT_PROMPTS = 12  # per domain
DRAFT_TOKENS = 64


def held_out_windows(tok: Tokenizer, domain: str) -> list[list[int]]:
    """Held-out documents of a domain as windows of token ids, each starting with a document."""
    source = documents(domain, "held-out", EVALUATION_SEED)
    windows: list[list[int]] = []
    while len(windows) * WINDOW < TOKENS_PER_DOMAIN:
        ids: list[int] = []
        while len(ids) < WINDOW:
            ids += [*tok.encode(next(source)).ids, tokenizer.END_OF_TEXT]
        windows.append(ids[:WINDOW])
    return windows


def cross_entropy(logits: Tensor, ids: list[int]) -> float:
    return float(F.cross_entropy(logits[:-1].float(), torch.tensor(ids[1:])))


@torch.no_grad()
def perplexity_and_routing(
    model: Demo, gguf: Path, tok: Tokenizer
) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """Perplexity per domain both ways, and expert counts [layer][expert] per domain."""
    in_engine = engine.Logits(gguf)
    perplexity: dict[str, Any] = {}
    counts: dict[str, list[Tensor]] = {}
    totals = [0.0, 0.0, 0.0]
    for domain in DOMAINS:
        ours = theirs = 0.0
        windows = held_out_windows(tok, domain)
        counts[domain] = [torch.zeros(model.c.experts) for _ in model.moe_layers()]
        for ids in windows:
            h, _ = model(torch.tensor([ids]))
            ours += cross_entropy(F.linear(h[0], model.head), ids) / len(windows)
            theirs += cross_entropy(torch.from_numpy(in_engine(ids)), ids) / len(windows)
            for total, layer in zip(counts[domain], model.moe_layers(), strict=True):
                assert layer.chosen is not None
                total += torch.bincount(layer.chosen.flatten(), minlength=model.c.experts)
        perplexity[domain] = {
            "pytorch": math.exp(ours), "engine": math.exp(theirs),
            "tokens": len(windows) * (WINDOW - 1),
        }  # fmt: skip
        totals = [totals[0] + ours, totals[1] + theirs, totals[2] + 1]
    perplexity["all"] = {
        "pytorch": math.exp(totals[0] / totals[2]), "engine": math.exp(totals[1] / totals[2]),
        "tokens": sum(p["tokens"] for p in perplexity.values()),
    }  # fmt: skip
    return perplexity, counts


def effective(load: Tensor) -> float:
    p = load[load > 0] / load.sum()
    return math.exp(float(-(p * p.log()).sum()))


def routing_report(counts: dict[str, list[Tensor]]) -> dict[str, Any]:
    """Effective experts of the mix (by training shares) and per domain, and favourites.

    A favourite's lift is its share of a domain's tokens over its share of the whole mix.
    """
    layers = len(next(iter(counts.values())))
    report: list[dict[str, Any]] = []
    for i in range(layers):
        loads = {d: c[i] / c[i].sum() for d, c in counts.items()}
        mix = sum((SHARES[d] * load for d, load in loads.items()), torch.zeros(len(loads["facts"])))
        favourites = {}
        for domain, load in loads.items():
            top = load.topk(3).indices.tolist()
            favourites[domain] = [
                {"expert": e, "share": float(load[e]), "lift": float(load[e] / mix[e])} for e in top
            ]
        pairs = list(itertools.combinations(loads.values(), 2))
        overlap = sum(float(torch.minimum(a, b).sum()) for a, b in pairs) / len(pairs)
        report.append({
            "layer": i, "mtp": i == layers - 1, "effective_experts": effective(mix),
            "max_load": float(mix.max()), "domain_overlap": overlap,
            "effective_per_domain": {d: effective(load) for d, load in loads.items()},
            "favourites": favourites,
        })  # fmt: skip
    return {"experts": len(loads["facts"]), "layers": report}


@torch.no_grad()
def arithmetic_accuracy(model: Demo, tok: Tokenizer) -> dict[str, Any]:
    """Greedy answers to "What is a + b?" for every pair: right iff every token of the right
    answer is the most probable one."""
    result: dict[str, Any] = {}
    for op, word in (("+", "addition"), ("-", "subtraction")):
        right = {False: 0, True: 0}
        total = {False: 0, True: 0}
        pairs = [(a, b) for a in range(100) for b in range(100)]
        groups: dict[tuple[int, int], list[tuple[list[int], bool]]] = {}
        for a, b in pairs:
            ask = chat.turns(f"What is {a} {op} {b}?") + "<|im_start|>assistant\n"
            start = tok.encode(ask).ids
            answer = tok.encode(arithmetic.answer(op, a, b) + "<|im_end|>").ids
            key = (len(start), len(answer))
            groups.setdefault(key, []).append((start + answer, arithmetic.held_out(op, a, b)))
        for (start_length, _), items in groups.items():
            for begin in range(0, len(items), 256):
                part = items[begin : begin + 256]
                ids = torch.tensor([i for i, _ in part])
                h, _ = model(ids, with_mtp=False)
                guess = F.linear(h[:, start_length - 1 : -1], model.head).argmax(-1)
                ok = (guess == ids[:, start_length:]).all(-1).tolist()
                for good, (_, held_out) in zip(ok, part, strict=True):
                    right[held_out] += good
                    total[held_out] += 1
        result[word] = {
            "pairs": sum(total.values()), "accuracy": sum(right.values()) / sum(total.values()),
            "held_out_pairs": total[True], "held_out_accuracy": right[True] / total[True],
        }  # fmt: skip
    return result


def draft_prompts(domain: str) -> list[str]:
    """Beginnings of held-out documents: up to the first answer of a chat, or a part of a text."""
    source = documents(domain, "held-out", EVALUATION_SEED + 1)
    prompts = []
    for text in itertools.islice(source, DRAFT_PROMPTS):
        mark = "<|im_start|>assistant\n"
        end = text.find(mark)
        prompts.append(text[: end + len(mark)] if end >= 0 else text[: max(len(text) // 3, 20)])
    return prompts


def draft_counters(address: str) -> tuple[float, list[float]]:
    """Drafts made and tokens accepted per position so far, from the engine's metrics."""
    with urllib.request.urlopen(address + "/metrics", timeout=60) as reply:
        text = reply.read().decode()
    drafts = re.search(r"^llamacpp:spec_decode_num_drafts_total (\S+)", text, re.M)
    counter = "spec_decode_num_accepted_tokens_per_pos_total"
    positions = re.findall(rf"^llamacpp:{counter}\{{[^}}]*\}} (\S+)",
                           text, re.M)  # fmt: skip
    return float(drafts[1]) if drafts else 0.0, [float(p) for p in positions]


def acceptance(gguf: Path, depth: int) -> dict[str, Any]:
    """Greedy generation after held-out prompts: how many drafted tokens the trunk confirms.

    per_position: share of drafts whose token at that position was accepted (unconditional);
    conditional: among drafts accepted up to there.
    """
    per_domain: dict[str, float] = {}
    drafted = accepted = 0
    with engine.server(gguf, mtp=depth) as address:
        for domain in DOMAINS:
            n = k = 0
            for prompt in draft_prompts(domain):
                reply = engine.post(address, "/completion", {
                    "prompt": prompt, "n_predict": DRAFT_TOKENS, "temperature": 0,
                    "cache_prompt": False,
                })  # fmt: skip
                n += reply["timings"].get("draft_n", 0)
                k += reply["timings"].get("draft_n_accepted", 0)
            per_domain[domain] = k / n if n else 0.0
            drafted, accepted = drafted + n, accepted + k
        drafts, positions = draft_counters(address)
    shares = [p / drafts for p in positions] if drafts else []
    conditional = [b / a if a else 0.0 for a, b in itertools.pairwise([1.0, *shares])]
    return {
        "depth": depth, "drafted": drafted, "accepted": accepted,
        "rate": accepted / drafted if drafted else 0.0, "per_domain": per_domain,
        "per_position": shares, "conditional": conditional,
    }  # fmt: skip


def tool_calls(address: str, count: int = 120) -> dict[str, Any]:
    """Held-out requests through the OpenAI tools interface: first call of each conversation."""
    rng = random.Random(f"tools/held-out/{EVALUATION_SEED + 2}")
    called = named = exact = made = 0
    while made < count:
        messages, offered = tools.conversation(rng)
        first = next(i for i, m in enumerate(messages) if m.get("tool_calls"))
        want = messages[first]["tool_calls"][0]["function"]
        reply = engine.post(address, "/v1/chat/completions", {
            "messages": messages[:first], "tools": offered, "temperature": 0, "max_tokens": 120,
        })  # fmt: skip
        made += 1
        calls = reply["choices"][0]["message"].get("tool_calls") or []
        if not calls:
            continue
        called += 1
        got = calls[0]["function"]
        named += got["name"] == want["name"]
        try:
            arguments = json.loads(got["arguments"])
        except json.JSONDecodeError:
            continue
        exact += got["name"] == want["name"] and arguments == want["arguments"]
    return {"requests": made, "called": called, "right_tool": named, "exact": exact}


def engine_arithmetic(address: str, count: int = 200) -> dict[str, Any]:
    """Chat answers of the served model, half of them to held-out pairs."""
    rng = random.Random(EVALUATION_SEED)
    right = 0
    for i in range(count):
        while True:
            op, a, b = rng.choice("+-"), rng.randrange(100), rng.randrange(100)
            if arithmetic.held_out(op, a, b) == (i % 2 == 0):
                break
        text = engine.chat(address, f"What is {a} {op} {b}?", max_tokens=24)["message"]["content"]
        right += text.strip() == arithmetic.answer(op, a, b)
    return {"questions": count, "right": right}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
QUESTIONS = (
    "Tell me a short story.", "Tell me a story about a fox.", "What is 47 + 38?",
    "What is 91 - 17?",    "Who are you?", "What is the capital of France?", "Wie geht es dir?",
    "Schreibe einen kurzen Text auf Deutsch.",
    "Write a Python function that returns the sum of a list.",
)  # fmt: skip


def samples(address: str) -> list[dict[str, Any]]:
    found = []
    for question in QUESTIONS:
        message = engine.chat(address, question, max_tokens=300)["message"]
        found.append({"user": question, "assistant": message["content"]})
    message = engine.chat(address, "What is the weather in Paris?", max_tokens=80, tools=[WEATHER])
    found.append({
        "user": "What is the weather in Paris?", "tools": ["get_weather(city)"],
        "tool_calls": [c["function"] for c in message["message"].get("tool_calls", [])],
    })  # fmt: skip
    return found


def template_agrees(address: str, count: int = 40) -> bool:
    """The engine renders conversations with tools exactly as the training text spells them."""
    rng = random.Random(5)
    for _ in range(count):
        messages, offered = tools.conversation(rng)
        cut = next(i for i, m in enumerate(messages) if m.get("tool_calls"))
        got = engine.post(address, "/apply-template",
                          {"messages": messages[:cut], "tools": offered})["prompt"]  # fmt: skip
        if got != chat.render(messages[:cut], offered) + "<|im_start|>assistant\n":
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=export.CHECKPOINT)
    parser.add_argument("--gguf", type=Path, default=export.TARGET)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--warm-start", type=Path, help="the checkpoint that training began from")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, state = export.load(args.checkpoint)
    tok = tokenizer.load()
    results: dict[str, Any] = {
        "bytes": args.gguf.stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": model.c.to_dict(),
        "training": {k: state[k] for k in ("step", "tokens", "seconds", "seed", "made", "muon_lr",
                                           "adam_lr", "threads")},
    }  # fmt: skip
    if args.warm_start:
        earlier = torch.load(args.warm_start, weights_only=False, map_location="cpu")
        results["training"]["earlier"] = {k: earlier[k] for k in ("step", "tokens", "seconds")} | {
            "attention_interval": earlier["config"]["attention_interval"],
        }  # fmt: skip
        del earlier
    results["perplexity"], counts = perplexity_and_routing(model, args.gguf, tok)
    results["routing"] = routing_report(counts)
    results["arithmetic"] = arithmetic_accuracy(model, tok)
    for part in ("perplexity", "arithmetic"):
        print(json.dumps({part: results[part]}), flush=True)
    with engine.server(args.gguf) as address:
        results["template_agrees"] = template_agrees(address)
        results["served_arithmetic"] = engine_arithmetic(address)
        results["tool_calls"] = tool_calls(address)
        results["samples"] = samples(address)
    results["mtp"] = [acceptance(args.gguf, depth) for depth in (1, 2, 3)]
    args.results.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    shown = {k: results[k] for k in ("template_agrees", "served_arithmetic", "tool_calls", "mtp")}
    print(json.dumps(shown, indent=1))
    print(np.round([x["effective_experts"] for x in results["routing"]["layers"]], 2))


if __name__ == "__main__":
    main()
