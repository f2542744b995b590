"""Train the demo model until a time of day: `python -m forge.train --until 03:15 [--resume]`."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from forge import optimizer, tokenizer
from forge.data import DOMAINS, documents
from forge.model import Config, Demo
from forge.packing import Packer

WORK = Path(__file__).parent / "work"
CHECKPOINT = WORK / "checkpoint.pt"
LOG = WORK / "train.jsonl"
BALANCE = 0.01
WARMUP_STEPS = 60
DECAY_FROM = 0.5  # of the time
ROWS = {512: 4, 2048: 1}  # sequence length -> rows of one micro-batch


def schedule(progress: float, step: int) -> float:
    """Warm-up, stable, then a linear decay that ends with the time."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = 1.0 if progress < DECAY_FROM else (1 - progress) / (1 - DECAY_FROM)
    return warm * max(decay, 0.01)


def effective(load: Tensor) -> float:
    """exp(entropy) of an expert load: how many experts share the work."""
    p = load[load > 0]
    return math.exp(float(-(p * p.log()).sum()))


def save(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def warm_start(model: Demo, path: Path) -> tuple[int, dict[str, Any]]:
    """Loads every tensor of a checkpoint that has a place of the same name and shape; the others
    keep their fresh values. Returns the tokens it has seen and the packer's position."""
    state = torch.load(path, weights_only=False, map_location="cpu")
    own = model.state_dict()
    fits = {n: t for n, t in state["model"].items() if n in own and own[n].shape == t.shape}
    model.load_state_dict(fits, strict=False)
    print(f"warm start: {len(fits)} of {len(own)} tensors from {path.name}", flush=True)
    return state["tokens"], state["packer"]


@torch.no_grad()
def held_out_loss(model: Demo, packer_tokenizer: Any, device: str) -> dict[str, list[float]]:
    """Nats per token of trunk and MTP block, per domain, on a few held-out documents."""
    result = {}
    for domain in DOMAINS:
        source = documents(domain, "held-out", seed=1)
        ids: list[int] = []
        while len(ids) < 1025:
            ids += [*packer_tokenizer.encode(next(source)).ids, tokenizer.END_OF_TEXT]
        x = torch.tensor([ids[:1025]], device=device)
        h, m = model(x[:, :-1])
        assert m is not None
        targets = x[0, 1:]
        trunk = F.cross_entropy(F.linear(h[0], model.head), targets)
        mtp = F.cross_entropy(F.linear(m[0, 1:], model.head), targets[1:])
        result[domain] = [round(float(trunk), 4), round(float(mtp), 4)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--until", help="time of day, HH:MM")
    end.add_argument("--minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--warm-start", type=Path, help="take over what fits of a checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    args = parser.parse_args()

    now = datetime.datetime.now()
    if args.until:
        hour, minute = map(int, args.until.split(":"))
        stop = now.replace(hour=hour, minute=minute, second=0)
        stop += datetime.timedelta(days=1) if stop < now else datetime.timedelta()
    else:
        stop = now + datetime.timedelta(minutes=args.minutes)
    left = (stop - now).total_seconds()

    WORK.mkdir(exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tok = tokenizer.load()
    model = Demo(Config()).to(args.device)
    optimizers = optimizer.build(model, args.muon_lr, args.adam_lr)
    bases = [[g["lr"] for g in o.param_groups] for o in optimizers]
    packer = Packer(tok, args.seed)
    step, tokens, spent = 0, 0, 0.0
    if args.resume:
        state = torch.load(CHECKPOINT, weights_only=False, map_location=args.device)
        model.load_state_dict(state["model"])
        for o, s in zip(optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        packer.load_state_dict(state["packer"])
        torch.set_rng_state(state["rng"].cpu())
        step, tokens, spent = state["step"], state["tokens"], state["seconds"]
    elif args.warm_start:
        tokens, packer_state = warm_start(model, args.warm_start)
        packer.load_state_dict(packer_state)
    parameters = [p for p in model.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in parameters):,} parameters, {left / 60:.1f} minutes", flush=True)

    asked: list[int] = []  # a polite kill saves first
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    begin = time.monotonic()
    last_save = last_log = begin
    logged_tokens = tokens
    while (elapsed := time.monotonic() - begin) < left and not asked:
        progress = (spent + elapsed) / (spent + left)
        for o, lrs in zip(optimizers, bases, strict=True):
            for group, lr in zip(o.param_groups, lrs, strict=True):
                group["lr"] = lr * schedule(progress, step)
        length = 2048 if step % 8 == 7 else 512
        sums = torch.zeros(3)
        for _ in range(args.micro_batches):
            batch = [x.to(args.device) for x in packer.batch(ROWS[length], length)]
            with torch.autocast(torch.device(args.device).type, torch.bfloat16):
                trunk, mtp, aux = model.losses(*batch)
                loss = (trunk + mtp) / 2 + BALANCE * aux
            (loss / args.micro_batches).backward()
            sums += torch.stack([trunk, mtp, aux]).detach().cpu() / args.micro_batches
            tokens += batch[0].numel()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1

        if step % 10 == 0:
            t = time.monotonic()
            entry = {
                "step": step, "tokens": tokens, "minutes": round((spent + t - begin) / 60, 2),
                "trunk": round(float(sums[0]), 4), "mtp": round(float(sums[1]), 4),
                "aux": round(float(sums[2]), 3), "norm": round(float(norm), 3),
                "lr": round(schedule(progress, step), 4),
                "tokens_per_second": round((tokens - logged_tokens) / (t - last_log)),
                "effective_experts": [round(effective(m.load), 1) for m in model.moe_layers()
                                      if m.load is not None],
            }  # fmt: skip
            last_log, logged_tokens = t, tokens
            print(json.dumps(entry), flush=True)
            with LOG.open("a") as log:
                log.write(json.dumps(entry) + "\n")
        final = bool(asked) or time.monotonic() - begin >= left
        if final or time.monotonic() - last_save > 300:
            save(CHECKPOINT, {
                "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "packer": packer.state_dict(), "rng": torch.get_rng_state(), "step": step,
                "tokens": tokens, "seconds": spent + time.monotonic() - begin,
                "seed": args.seed, "config": model.c.to_dict(), "made": packer.made,
                "muon_lr": args.muon_lr, "adam_lr": args.adam_lr, "threads": args.threads,
            })  # fmt: skip
            last_save = time.monotonic()
            print(json.dumps({"step": step, "held_out": held_out_loss(model, tok, args.device)}),
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
