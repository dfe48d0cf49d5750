"""Advantages beyond TRL's, and which completions are learned from. Pure functions of tensors.

Legend: M groups of G completions, N = M G; rewards are NaN where a completion is ungradable.
"""

import torch
from torch import Tensor

LARGEST = 1e6
"""Bound of a weight 1 / f."""
SMALLEST = 1e-8
"""Variance of solve rates below which they are taken as equal."""


def beta_parameters(rates: Tensor) -> tuple[float, float] | None:
    """alpha and beta of the normalising Beta density, from the batch's solve rates.

    With mean m and sample variance v (n - 1): a = (m (1 - m) / v - 1) m, b the same with (1 - m);
    alpha = max(1, 1 + a / 3), beta = max(1, 1 + b / 3) (BNPO, arXiv 2506.02864, sec. 4).

    Args:
        rates: [M] in [0, 1].

    Returns:
        None where there is no variance to go by (one prompt, or equal rates); the formula would
        divide by zero.
    """
    if len(rates) < 2 or (variance := float(rates.var())) < SMALLEST:
        return None
    mean = float(rates.mean())
    common = mean * (1 - mean) / variance - 1
    return max(1.0, 1 + common * mean / 3), max(1.0, 1 + common * (1 - mean) / 3)


def beta_weights(rates: Tensor) -> Tensor:
    """1 / f(p; alpha, beta) of each solve rate, at most `LARGEST`; 1 where rates are equal. [M]."""
    parameters = beta_parameters(rates)
    if parameters is None:
        return torch.ones_like(rates)
    alpha, beta = (torch.tensor(value, dtype=torch.float64) for value in parameters)
    p = rates.double()
    log_norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    log_density = torch.xlogy(alpha - 1, p) + torch.xlogy(beta - 1, 1 - p) - log_norm
    return torch.exp(-log_density).clamp(max=LARGEST).to(rates.dtype)


def beta_norm(rewards: Tensor) -> Tensor:
    """(R - p(q)) / f(p(q); alpha, beta), p(q) a group's mean reward (BNPO, eq. 6).

    Args:
        rewards: [M, G] in [0, 1], of all processes; NaN where ungradable.

    Returns:
        [M, G], 0 where ungradable.
    """
    rates = rewards.nanmean(1)
    known = ~rates.isnan()
    weights = torch.zeros_like(rates)
    weights[known] = beta_weights(rates[known])
    return ((rewards - rates.unsqueeze(1)) * weights.unsqueeze(1)).nan_to_num(0.0)


def mean_of_parts(parts: list[tuple[float, Tensor]]) -> Tensor:
    """Weighted mean of `beta_norm` by part of the reward (BNPO's advantage decomposition).

    Args:
        parts: weight and rewards [M, G] in [0, 1] of each part.
    """
    total = sum(weight for weight, _ in parts)
    shares = [weight / total * beta_norm(rewards) for weight, rewards in parts]
    return torch.stack(shares).sum(0)


def most_varied(advantages: Tensor, keep: int, free: Tensor, min_free: int = 0) -> Tensor:
    """D3S: the `keep` completions whose advantages have the greatest variance (2509.22115, eq. 5).

    The best set holds some largest and some smallest values; all splits are tried. If it has fewer
    than `min_free` policy-free ones, the best set with exactly so many is taken: extremes of the
    free and extremes of the aware completions.

    Args:
        advantages: [N], of all processes.
        keep: size of the set, below N.
        free: [N] bool, generated without the policy.
        min_free: policy-free ones in the set, at least.

    Returns:
        [N] bool.
    """
    order = advantages.argsort(stable=True)
    chosen = _extremes(order, _best(advantages[order], keep))
    if int(free[chosen].sum()) < min_free:
        low, high = order[free[order]], order[~free[order]]
        splits = _best_pair(advantages[low], min_free, advantages[high], keep - min_free)
        parts = zip((low, high), splits, strict=True)
        chosen = torch.cat([_extremes(part, split) for part, split in parts])
    mask = torch.zeros_like(free)
    mask[chosen] = True
    return mask


def _extremes(order: Tensor, split: tuple[int, int]) -> Tensor:
    """The first `split[0]` and the last `split[1]` of `order`."""
    smallest, largest = split
    return torch.cat([order[:smallest], order[len(order) - largest :]])


def _sums(ascending: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares of the i largest and keep - i smallest, by i. [keep + 1] each."""
    values = ascending.double()
    found = []
    for powers in (values, values.square()):
        below = torch.cat([powers.new_zeros(1), powers.cumsum(0)])
        above = torch.cat([powers.new_zeros(1), powers.flip(0).cumsum(0)])
        largest = torch.arange(keep + 1)
        found.append(below[keep - largest] + above[largest])
    return found[0], found[1]


def _best(ascending: Tensor, keep: int) -> tuple[int, int]:
    total, squares = _sums(ascending, keep)
    largest = int((squares / keep - (total / keep).square()).argmax())
    return keep - largest, largest


def _best_pair(
    first: Tensor, keep_first: int, second: Tensor, keep_second: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    (sum_a, square_a), (sum_b, square_b) = _sums(first, keep_first), _sums(second, keep_second)
    keep = keep_first + keep_second
    total = sum_a.unsqueeze(1) + sum_b.unsqueeze(0)
    squares = square_a.unsqueeze(1) + square_b.unsqueeze(0)
    place = int((squares / keep - (total / keep).square()).argmax())
    i, j = divmod(place, keep_second + 1)
    return (keep_first - i, i), (keep_second - j, j)


def token_weights(free: Tensor, full: Tensor, cap: float, gamma: float | None) -> Tensor:
    """w = min(cap, p(o_t | x) / p(o_t | x, P)) of each token, and w / (w + gamma) if asked for.

    Args:
        free: log-probabilities given the policy-free prompt, [B, T].
        full: given the policy-bearing prompt that the tokens were drawn from, [B, T].
        cap: greatest weight.
        gamma: of LUFFY's shaping (arXiv 2504.14945, eq. 8); None for none.
    """
    weights = (free - full).exp().clamp(max=cap)
    return weights if gamma is None else weights / (weights + gamma)


def teacher_advantages(free: Tensor, full: Tensor, weight: float, clip: float) -> Tensor:
    """-weight x clip(log p(o_t | x) - log p(o_t | x, P)), [B, T].

    On tokens drawn from p(. | x) the policy gradient of these advantages is that of the reverse
    KL to the policy-bearing path at each token, the path itself fixed (OPCD, arXiv 2602.12275).
    """
    return -weight * (free - full).clamp(-clip, clip)
