"""How far a candidate's next-token distributions are from the reference's, on the same tokens.

The definitions are those of `llama-perplexity --kl-divergence`: the Kullback–Leibler divergence
KL(reference ‖ candidate) = Σ p·log(p/q) in nats (Kullback and Leibler, 1951), the share of
positions where both models name the same most likely token, and perplexity exp(mean −log p of the
text's own next token). That program keeps the reference in 16 bits and skips tokens with
p < e^−16; here nothing is rounded or skipped, which differs by far less than a per cent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestro.verify.softmax import likely_tokens, row_blocks, sum_rows


@dataclass(frozen=True, slots=True)
class TokenDivergence:
    """One value per scored position, arrays [S]; nats.

    Where a model's logits were not finite its `nll` is NaN, and so is `kld`; `same_top` is False.
    """

    kld: NDArray[np.float64]
    nll_reference: NDArray[np.float64]
    nll_candidate: NDArray[np.float64]
    same_top: NDArray[np.bool_]

    @property
    def finite(self) -> NDArray[np.bool_]:
        return np.isfinite(self.kld)

    def __len__(self) -> int:
        return len(self.kld)


def compare_logits(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], targets: NDArray[np.int32]
) -> TokenDivergence:
    """Exact comparison of logits [S, V] with logits [S, V]; `targets` [S] are the next tokens.

    With a = reference − its greatest logit, b = candidate − its greatest, and Z = Σ exp of each:
    KL = Σ exp(a)·(a − b) / Z_a + log Z_b − log Z_a. One exponential per logit, and no cancellation
    of the greatest logits.

    Raises:
        ValueError: the shapes do not belong together, or a target is not in the vocabulary.
    """
    rows, vocabulary = _checked_shape(reference, candidate, targets)
    kld = np.empty(rows)
    nll_reference, nll_candidate = np.empty(rows), np.empty(rows)
    same_top = np.empty(rows, np.bool_)
    scratch: tuple[NDArray[np.float32], ...] = ()
    with np.errstate(all="ignore"):  # what is not finite is marked, not warned about
        for block in row_blocks(rows, vocabulary):
            z, w = reference[block], candidate[block]
            if not scratch or len(scratch[0]) != len(z):
                scratch = tuple(np.empty(z.shape, np.float32) for _ in range(3))
            kld[block], nll_reference[block], nll_candidate[block], same_top[block] = _compare(
                z, w, targets[block], scratch
            )
    _mark_not_finite(kld, reference, candidate, nll_reference, nll_candidate)
    same_top &= np.isfinite(kld)
    return TokenDivergence(kld, nll_reference, nll_candidate, same_top)


def _checked_shape(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], targets: NDArray[np.int32]
) -> tuple[int, int]:
    if reference.ndim != 2 or reference.shape != candidate.shape or not reference.shape[1]:
        raise ValueError(f"logits {reference.shape} against logits {candidate.shape}")
    rows, vocabulary = reference.shape
    check_targets(targets, rows, vocabulary)
    return rows, vocabulary


def check_targets(targets: NDArray[np.int32], rows: int, vocabulary: int) -> None:
    """
    Raises:
        ValueError: not one target a row, or a target that is not in the vocabulary.
    """
    if targets.shape != (rows,):
        raise ValueError(f"targets {targets.shape} for {rows} rows of logits")
    if rows and not (targets.min() >= 0 and targets.max() < vocabulary):
        raise ValueError(f"a target outside the vocabulary of {vocabulary} tokens")


def _compare(
    z: NDArray[np.float32],
    w: NDArray[np.float32],
    targets: NDArray[np.int32],
    scratch: tuple[NDArray[np.float32], ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """KL, both negative log-likelihoods and the agreement of the tops for a block of rows."""
    a, b, e = scratch
    count = len(z)
    each = np.arange(count)
    top_z, top_w = z.argmax(axis=1), w.argmax(axis=1)
    max_z, max_w = z[each, top_z], w[each, top_w]
    np.subtract(z, max_z[:, None], out=a)
    np.subtract(w, max_w[:, None], out=b)

    # The tokens with the mass, in float64 from the logits themselves.
    rows, columns = likely_tokens(a)
    a_likely = z[rows, columns].astype(np.float64) - max_z[rows]
    b_likely = w[rows, columns].astype(np.float64) - max_w[rows]
    p_likely = np.exp(a_likely)
    sum_w = sum_rows(rows, np.exp(b_likely), count)
    sum_z = sum_rows(rows, p_likely, count)
    weighted = sum_rows(rows, p_likely * (a_likely - b_likely), count)

    # The rest, in float32.
    np.exp(b, out=e)
    e[rows, columns] = 0
    sum_w += e.sum(axis=1)
    np.subtract(a, b, out=b)
    np.exp(a, out=e)
    e[rows, columns] = 0
    sum_z += e.sum(axis=1)
    weighted += np.vecdot(e, b)

    log_z, log_w = np.log(sum_z), np.log(sum_w)
    kld = weighted / sum_z + (log_w - log_z)
    nll_z = log_z + max_z - z[each, targets]
    nll_w = log_w + max_w - w[each, targets]
    # Rounding can leave −1e-9 where the truth is 0; NaN stays NaN.
    return np.maximum(kld, 0.0), nll_z, nll_w, top_z == top_w


def _mark_not_finite(
    kld: NDArray[np.float64],
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    nll_reference: NDArray[np.float64],
    nll_candidate: NDArray[np.float64],
) -> None:
    """Says whose logits were at fault; any NaN or infinity in a row has spoilt its KL."""
    nll_sum = nll_reference + nll_candidate
    for row in np.flatnonzero(~(np.isfinite(kld) & np.isfinite(nll_sum))):
        kld[row] = np.nan
        for logits, nll in ((reference, nll_reference), (candidate, nll_candidate)):
            if not np.isfinite(logits[row]).all():
                nll[row] = np.nan
