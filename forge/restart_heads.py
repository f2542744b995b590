"""Give some DeltaNet heads of a checkpoint a fresh start as associative memories.

    python -m forge.restart_heads --layers 1 2 --head 1

Key head `head` of each layer named, and the value heads that read it, are set up to look up what
followed the present token before: keys come from the previous token, queries and values from the
present one, and nothing is forgotten quickly. Their output starts at zero, so that the rest of
the model is disturbed little. Heads that begin as a random mixture of neighbouring tokens with a
short memory (the first initialisation used here) do not find this by themselves in a short run.
"""

from __future__ import annotations

import argparse
import math

import torch

from forge.export import CHECKPOINT
from forge.model import Config, DeltaNet, Demo
from forge.train import save


@torch.no_grad()
def restart(layer: DeltaNet, head: int, two_tokens: bool) -> None:
    c = layer.c
    d, key = c.gdn_dim, c.key_dim
    shared = torch.randn(d, c.hidden) / math.sqrt(c.hidden)
    before = 0.6 if two_tokens else 0.0
    q, k = slice(head * d, (head + 1) * d), slice(key + head * d, key + (head + 1) * d)
    layer.qkv[q], layer.qkv[k] = shared, shared
    layer.conv[q] = torch.tensor([0.0, 0.0, before, 1.0])
    layer.conv[k] = torch.tensor([0.0, before, 1.0, 0.0])
    for value in range(head, c.gdn_v_heads, c.gdn_k_heads):
        v = slice(2 * key + value * d, 2 * key + (value + 1) * d)
        layer.qkv[v] = torch.randn(d, c.hidden) / math.sqrt(c.hidden)
        layer.conv[v] = torch.tensor([0.0, 0.0, 0.0, 1.0])
        layer.out[:, value * d : (value + 1) * d] = 0.0
        layer.alpha[value], layer.beta[value] = 0.0, 0.0
        layer.a_log[value] = 0.0
        layer.dt_bias[value] = math.log(math.expm1(0.002))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--head", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(0)
    state = torch.load(CHECKPOINT, weights_only=False, map_location="cpu")
    model = Demo(Config(**state["config"]))
    model.load_state_dict(state["model"])
    for i in args.layers:
        mixer = model.blocks[i].mixer
        if not isinstance(mixer, DeltaNet):
            raise SystemExit(f"layer {i} is not a DeltaNet layer")
        restart(mixer, args.head, two_tokens=i != args.layers[0])
    state["model"] = model.state_dict()
    save(CHECKPOINT, state)
    print(f"step {state['step']}: head {args.head} of layers {args.layers} starts again")


if __name__ == "__main__":
    main()
