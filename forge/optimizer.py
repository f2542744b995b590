"""Muon for the dense weight matrices, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def orthogonalise(x: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    y = x.bfloat16()
    tall = y.shape[-2] > y.shape[-1]
    if tall:
        y = y.mT
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = y @ y.mT
        y = a * y + (b * s + c * s @ s) @ y
    return (y.mT if tall else y).to(x.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.0) -> None:  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                buffer = state["buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                rows, columns = p.shape[-2:]
                update = orthogonalise(update)
                scale = max(1.0, rows / columns) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)


def build(model: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Dense matrices inside blocks go to Muon; everything else to AdamW.

    Expert stacks stay with AdamW: their orthogonalisation would cost a third of a CPU step.
    """
    matrices, tables, rest = [], [], []
    for name, p in model.named_parameters():
        if name in ("embedding", "head"):
            tables.append(p)
        elif p.ndim == 2 and min(p.shape) >= 64:
            matrices.append(p)
        else:
            rest.append(p)
    adam = torch.optim.AdamW(
        [{"params": tables, "lr": adam_lr}, {"params": rest, "lr": adam_lr / 2}],
        lr=adam_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, fused=True,
    )  # fmt: skip
    return [Muon(matrices, muon_lr, weight_decay=0.01), adam]
