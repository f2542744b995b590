"""The demo model in PyTorch: Gated DeltaNet + gated attention, mixture of experts, one MTP block.

The arithmetic follows llama.cpp's `qwen35moe` graph, so that an exported file computes the same
function: ordinary RMSNorm weights (what the GGUF holds), V head i reads K head i mod n_k (tiled),
keys and queries of the delta rule divided by sqrt(sum of squares + eps), and the MTP block reading
the trunk's hidden state *after* the output norm, shifted right by one position.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Shape of the model. Row lengths are multiples of 256, so that K-quants stay possible."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 4
    attention_interval: int = 2
    experts: int = 16
    experts_used: int = 2
    expert_ffn: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    rope_dim: int = 32
    rope_sections: tuple[int, int, int, int] = field(default=(6, 5, 5, 0))
    rope_base: float = 10_000.0
    gdn_v_heads: int = 4
    gdn_k_heads: int = 2
    gdn_dim: int = 64
    conv_kernel: int = 4
    eps: float = 1e-6
    context: int = 4096

    @property
    def key_dim(self) -> int:
        return self.gdn_k_heads * self.gdn_dim

    @property
    def value_dim(self) -> int:
        return self.gdn_v_heads * self.gdn_dim

    @property
    def conv_dim(self) -> int:
        return 2 * self.key_dim + self.value_dim

    def to_dict(self) -> dict:
        return asdict(self)


class Normalise(torch.autograd.Function):
    """x * weight / rms(x) over the last dimension, in few passes over memory."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # noqa: ANN001, ANN205
        n = x.shape[-1]
        square = torch.linalg.vecdot(x, x).float() if x.dtype == torch.float32 else (
            x.float().square().sum(-1))  # fmt: skip
        inverse = torch.rsqrt(square / n + eps).unsqueeze(-1).to(x.dtype)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        unit, inverse, weight = ctx.saved_tensors
        n = unit.shape[-1]
        product = grad * unit
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = product.reshape(-1, n).sum(0, dtype=torch.float32).to(weight.dtype)
        w = weight.to(unit.dtype)
        mean = (product @ w).unsqueeze(-1) / n
        return torch.addcmul(grad * w, unit, mean, value=-1).mul_(inverse), grad_weight, None


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return Normalise.apply(x, self.weight, self.eps)


class CrossEntropy(torch.autograd.Function):
    """Weighted mean cross-entropy of a linear head, with its gradient made on the way forward,
    so that the large logits are touched few times."""

    CHUNK = 1024

    @staticmethod
    def forward(ctx, x, head, targets, weights):  # noqa: ANN001, ANN205
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows, matrix16 = x.to(dtype), head.to(dtype)
        count = weights.sum().clamp(min=1e-6)
        loss = x.new_zeros((), dtype=torch.float32)
        grad_x, grad_head = torch.empty_like(rows), torch.zeros_like(head)
        for begin in range(0, len(rows), CrossEntropy.CHUNK):
            part = slice(begin, begin + CrossEntropy.CHUNK)
            logits = (rows[part] @ matrix16.t()).float()
            weight = weights[part].unsqueeze(-1)
            target = targets[part].unsqueeze(-1)
            log_z = logits.logsumexp(-1, keepdim=True)
            loss += ((log_z - logits.gather(-1, target)) * weight).sum()
            g = logits.sub_(log_z).exp_().mul_(weight / count)
            g.scatter_add_(-1, target, -weight / count)
            g = g.to(dtype)
            torch.mm(g, matrix16, out=grad_x[part])
            grad_head += (g.t() @ rows[part]).to(head.dtype)
        ctx.save_for_backward(grad_x, grad_head)
        ctx.dtype = x.dtype
        return loss / count

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        grad_x, grad_head = ctx.saved_tensors
        return grad_x.to(ctx.dtype) * grad, grad_head * grad, None, None


def matrix(out_dim: int, in_dim: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(out_dim, in_dim) * (0.6 * scale / math.sqrt(in_dim)))


def l2_normalise(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(sum of squares + eps)."""
    n = x.shape[-1]
    return Normalise.apply(x, x.new_full((n,), n**-0.5), eps / n)


def chunked_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunk: int = 64
) -> Tensor:
    """Gated delta rule over whole sequences from a zero state.

    q, k, v: [batch, heads, tokens, dim]; g (log decay) and beta: [batch, heads, tokens].
    Inside a chunk the recurrence is one unit-triangular solve; chunks follow one another.
    """
    b, h, tokens, dim = v.shape
    pad = -tokens % chunk
    if pad:
        q, k, v = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
        g, beta = F.pad(g, (0, pad)), F.pad(beta, (0, pad))
    n = (tokens + pad) // chunk
    q = q * dim**-0.5
    q, k, v = (x.reshape(b, h, n, chunk, dim) for x in (q, k, v))
    g = g.reshape(b, h, n, chunk).cumsum(-1)
    beta = beta.reshape(b, h, n, chunk, 1)

    upper = torch.ones(chunk, chunk, dtype=torch.bool, device=v.device).triu(1)
    decay = (g.unsqueeze(-1) - g.unsqueeze(-2)).masked_fill(upper, -torch.inf).exp()
    kt = k.transpose(-1, -2)
    k_beta = k * beta
    lower = (k_beta @ kt) * decay
    right = torch.cat([v * beta, k_beta * g.exp().unsqueeze(-1)], -1)
    # unitriangular: the diagonal (and what is above it) is never read
    solved = torch.linalg.solve_triangular(
        lower.float(), right.float(), upper=False, unitriangular=True
    )
    u, w = solved.split(dim, -1)
    inside = (q @ kt) * decay
    q_decayed = q * g.exp().unsqueeze(-1)
    last = g[..., -1:]
    k_tail = (k * (last - g).exp().unsqueeze(-1)).transpose(-1, -2)
    last = last.exp().unsqueeze(-1)

    u, w, inside, q_decayed, k_tail, last = (
        x.unbind(2) for x in (u, w, inside, q_decayed, k_tail, last)
    )
    state = v.new_zeros(b, h, dim, dim, dtype=torch.float32)
    outputs = []
    for i in range(n):
        v_new = u[i] - w[i] @ state
        outputs.append(q_decayed[i] @ state + inside[i] @ v_new)
        state = state * last[i] + k_tail[i] @ v_new
    return torch.stack(outputs, 2).reshape(b, h, n * chunk, dim)[:, :, :tokens]


class Experts(torch.autograd.Function):
    """All experts' SwiGLU, with the backward pass written out: element-wise work runs once over
    all rows, and only the matrix products loop over experts. Each expert's rows are padded to a
    multiple of ROWS, because the CPU library compiles a kernel for every new shape it meets."""

    ROWS = 64

    @staticmethod
    def forward(ctx, x, gate_up, down, slot, spans, used):  # noqa: ANN001, ANN205
        """slot: the row of each (token, choice), [tokens * used]; spans: row ranges of experts."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        source = slot.new_zeros(spans[-1][1])
        source[slot] = torch.arange(len(slot), device=slot.device) // used
        rows = x.to(dtype)[source]
        wide, narrow = gate_up.to(dtype), down.to(dtype)
        h = rows.new_empty(len(rows), wide.shape[1])
        for i, (begin, end) in enumerate(spans):
            torch.mm(rows[begin:end], wide[i].t(), out=h[begin:end])
        a, u = h.chunk(2, -1)
        s = F.silu(a) * u
        y = torch.empty_like(rows)
        for i, (begin, end) in enumerate(spans):
            torch.mm(s[begin:end], narrow[i].t(), out=y[begin:end])
        ctx.save_for_backward(rows, h, s, wide, narrow, slot)
        ctx.spans, ctx.used, ctx.dtypes = spans, used, (x.dtype, gate_up.dtype)
        return y[slot].view(len(x), used, -1)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        rows, h, s, wide, narrow, slot = ctx.saved_tensors
        g = torch.zeros_like(rows)  # padding rows stay zero, so they teach nothing
        g[slot] = grad.reshape(len(slot), -1).to(rows.dtype)
        gs, grad_narrow = torch.empty_like(s), torch.zeros_like(narrow)
        for i, (begin, end) in enumerate(ctx.spans):
            torch.mm(g[begin:end], narrow[i], out=gs[begin:end])
            torch.mm(g[begin:end].t(), s[begin:end], out=grad_narrow[i])
        a, u = h.chunk(2, -1)
        gh = torch.empty_like(h)
        half = a.shape[1]
        torch.mul(gs, F.silu(a), out=gh[:, half:])
        gh[:, :half] = torch.ops.aten.silu_backward(gs.mul_(u), a)
        grows, grad_wide = torch.empty_like(rows), torch.zeros_like(wide)
        for i, (begin, end) in enumerate(ctx.spans):
            torch.mm(gh[begin:end], wide[i], out=grows[begin:end])
            torch.mm(gh[begin:end].t(), rows[begin:end], out=grad_wide[i])
        gx = grows[slot].view(-1, ctx.used, rows.shape[1]).sum(1)
        x_type, w_type = ctx.dtypes
        return gx.to(x_type), grad_wide.to(w_type), grad_narrow.to(w_type), None, None, None


def assign_rows(chosen: Tensor, counts: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """Rows for (token, choice) pairs grouped by expert, every group padded to Experts.ROWS."""
    sizes = counts.clamp(min=1).add(Experts.ROWS - 1).div(Experts.ROWS, rounding_mode="floor")
    ends = sizes.mul(Experts.ROWS).cumsum(0)
    begins = ends - sizes * Experts.ROWS
    order = chosen.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    slot = rank - (counts.cumsum(0) - counts)[chosen] + begins[chosen]
    return slot, list(zip(begins.tolist(), ends.tolist(), strict=True))


class DeltaNet(nn.Module):
    """Gated DeltaNet: short convolution, delta rule with decay, gated norm."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.qkv = matrix(c.conv_dim, c.hidden)
        self.gate = matrix(c.value_dim, c.hidden)
        self.beta = matrix(c.gdn_v_heads, c.hidden)
        self.alpha = matrix(c.gdn_v_heads, c.hidden)
        self.conv = nn.Parameter(torch.randn(c.conv_dim, c.conv_kernel) * 0.3)
        self.a_log = nn.Parameter(torch.empty(c.gdn_v_heads).uniform_(1, 16).log())
        dt = torch.empty(c.gdn_v_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.norm = RMSNorm(c.gdn_dim, c.eps)
        self.out = matrix(c.hidden, c.value_dim, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        c = self.c
        b, t, _ = x.shape
        mixed = F.linear(x, self.qkv)
        padded = F.pad(mixed, (0, 0, c.conv_kernel - 1, 0))
        taps = self.conv.t().to(mixed.dtype)
        conv = padded[:, :t] * taps[0]
        for j in range(1, c.conv_kernel):
            conv = torch.addcmul(conv, padded[:, j : j + t], taps[j])
        conv = F.silu(conv)
        q, k, v = conv.split([c.key_dim, c.key_dim, c.value_dim], -1)
        repeat = c.gdn_v_heads // c.gdn_k_heads
        q = l2_normalise(q.view(b, t, c.gdn_k_heads, c.gdn_dim), c.eps).repeat(1, 1, repeat, 1)
        k = l2_normalise(k.view(b, t, c.gdn_k_heads, c.gdn_dim), c.eps).repeat(1, 1, repeat, 1)
        v = v.reshape(b, t, c.gdn_v_heads, c.gdn_dim)
        beta = torch.sigmoid(F.linear(x, self.beta).float())
        g = -self.a_log.exp() * F.softplus(F.linear(x, self.alpha).float() + self.dt_bias)
        with torch.autocast(x.device.type, enabled=False):  # small products: casts would cost more
            o = chunked_delta_rule(
                *(z.transpose(1, 2).float() for z in (q, k, v, g, beta))
            ).transpose(1, 2)
        z = F.linear(x, self.gate).view(b, t, c.gdn_v_heads, c.gdn_dim)
        o = self.norm(o) * F.silu(z)
        return F.linear(o.reshape(b, t, c.value_dim).to(x.dtype), self.out)


def rope_tables(c: Config, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For text all position ids of multi-section RoPE agree, which is plain RoPE."""
    half = c.rope_dim // 2
    freq = c.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angle = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * freq
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [batch, heads, tokens, dim]; the first 2 * cos.shape[-1] dimensions turn (NEOX pairs)."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class Attention(nn.Module):
    """Grouped-query attention; every query head also computes a sigmoid gate on its output."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.q = matrix(c.heads * c.head_dim * 2, c.hidden)
        self.k = matrix(c.kv_heads * c.head_dim, c.hidden)
        self.v = matrix(c.kv_heads * c.head_dim, c.hidden)
        self.out = matrix(c.hidden, c.heads * c.head_dim, 0.3)
        self.q_norm = RMSNorm(c.head_dim, c.eps)
        self.k_norm = RMSNorm(c.head_dim, c.eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        c = self.c
        b, t, _ = x.shape
        q, gate = F.linear(x, self.q).view(b, t, c.heads, 2, c.head_dim).unbind(3)
        k = F.linear(x, self.k).view(b, t, c.kv_heads, c.head_dim)
        v = F.linear(x, self.v).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        q = apply_rope(self.q_norm(q).transpose(1, 2), *rope).to(v.dtype)
        k = apply_rope(self.k_norm(k).transpose(1, 2), *rope).to(v.dtype)
        groups = c.heads // c.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        o = o * torch.sigmoid(gate)
        return F.linear(o.reshape(b, t, c.heads * c.head_dim), self.out)


class MoE(nn.Module):
    """Softmax router, top-k renormalised, plus one shared expert behind a sigmoid gate."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        h, f = c.hidden, c.expert_ffn
        self.router = matrix(c.experts, h)
        self.gate_up = nn.Parameter(torch.randn(c.experts, 2 * f, h) * (0.6 / math.sqrt(h)))
        self.down = nn.Parameter(torch.randn(c.experts, h, f) * (0.2 / math.sqrt(f)))
        self.shared_gate_up = matrix(2 * f, h)
        self.shared_down = matrix(h, f, 0.3)
        self.shared_gate = nn.Parameter(torch.zeros(h))
        self.aux: Tensor | None = None
        self.load: Tensor | None = None
        self.chosen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        c = self.c
        shape = x.shape
        x = x.reshape(-1, c.hidden)
        probs = F.linear(x.float(), self.router.float()).softmax(-1)
        weight, chosen = probs.topk(c.experts_used, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        flat = chosen.reshape(-1)
        counts = torch.bincount(flat, minlength=c.experts)
        # Switch-style balance over the whole batch, not per sequence: domains may keep favourites
        self.load = (counts / flat.numel()).detach()
        self.aux = c.experts * (self.load * probs.mean(0)).sum()
        self.chosen = chosen.detach()

        slot, spans = assign_rows(flat, counts)
        y = Experts.apply(x, self.gate_up, self.down, slot, spans, c.experts_used)
        y = (y * weight.to(y.dtype).unsqueeze(-1)).sum(1)
        a, u = F.linear(x, self.shared_gate_up).chunk(2, -1)
        shared = F.linear(F.silu(a) * u, self.shared_down)
        y = y + shared * torch.sigmoid(x @ self.shared_gate.to(x.dtype)).unsqueeze(-1)
        return y.view(shape)


class Block(nn.Module):
    def __init__(self, c: Config, full_attention: bool) -> None:
        super().__init__()
        self.full_attention = full_attention
        self.mixer_norm = RMSNorm(c.hidden, c.eps)
        self.mixer: Attention | DeltaNet = Attention(c) if full_attention else DeltaNet(c)
        self.ffn_norm = RMSNorm(c.hidden, c.eps)
        self.ffn = MoE(c)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        y = self.mixer_norm(x)
        x = x + (self.mixer(y, rope) if self.full_attention else self.mixer(y))
        return x + self.ffn(self.ffn_norm(x))


class MTP(nn.Module):
    """Reads (embedding of token p, trunk state of p-1) and predicts token p+1."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.enorm = RMSNorm(c.hidden, c.eps)
        self.hnorm = RMSNorm(c.hidden, c.eps)
        self.eh_proj = matrix(c.hidden, 2 * c.hidden)
        self.block = Block(c, full_attention=True)
        self.head_norm = RMSNorm(c.hidden, c.eps)

    def forward(self, embedded: Tensor, state: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """embedded, state: [batch, tokens, hidden], state already shifted right by one."""
        x = F.linear(torch.cat([self.enorm(embedded), self.hnorm(state)], -1), self.eh_proj)
        return self.head_norm(self.block(x, rope))


class Demo(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.embedding = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.5)
        self.blocks = nn.ModuleList(
            Block(c, (i + 1) % c.attention_interval == 0) for i in range(c.layers)
        )
        self.norm = RMSNorm(c.hidden, c.eps)
        self.head = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.02)
        self.mtp = MTP(c)

    def moe_layers(self) -> list[MoE]:
        return [b.ffn for b in self.blocks] + [self.mtp.block.ffn]

    def forward(self, tokens: Tensor, with_mtp: bool = True) -> tuple[Tensor, Tensor | None]:
        """tokens: [batch, tokens]. Returns the trunk's and the MTP block's hidden states, both
        normed and ready for the shared head. MTP state p speaks about token p + 1."""
        rope = rope_tables(self.c, tokens.shape[1], tokens.device)
        embedded = F.embedding(tokens, self.embedding)
        x = embedded
        for block in self.blocks:
            x = block(x, rope)
        h = self.norm(x)
        if not with_mtp:
            return h, None
        return h, self.mtp(embedded, F.pad(h, (0, 0, 1, 0))[:, :-1], rope)

    def losses(
        self, tokens: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross-entropies of trunk and MTP block, and the balance term summed over layers.

        targets: tokens shifted left by one; weights: how much each of them counts. Both heads at
        position p speak about targets[p]; the MTP block without having seen trunk state p.
        """
        h, m = self(tokens)
        assert m is not None
        trunk = CrossEntropy.apply(h.flatten(0, 1), self.head, targets.flatten(), weights.flatten())
        mtp = CrossEntropy.apply(
            m[:, 1:].flatten(0, 1), self.head, targets[:, 1:].flatten(), weights[:, 1:].flatten()
        )
        aux = torch.stack([layer.aux for layer in self.moe_layers()]).sum()
        return trunk, mtp, aux
