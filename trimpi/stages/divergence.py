"""Divergence between two next-token distributions, token by token, without the logits of a batch.

    forward_kl  KL(teacher || student) = sum_v p_T(v) (log p_T(v) - log p_S(v))
    reverse_kl  KL(student || teacher)
    jsd         (KL(teacher || m) + KL(student || m)) / 2,   m = (p_S + p_T) / 2

They are of whole distributions, so that the gradient goes through all of the student's and not
through one sampled token. Over the whole vocabulary this is TRL's kernel (`trl.kernels`), which
takes hidden states and output heads and makes tiles of logits: 4096 tokens by 32768 words in
float32 of either model at a time, whatever batch and lengths are. With `top_k` it is of the
teacher's K likeliest tokens and one more event, all others together: a lower bound of the whole
one (data processing inequality), made `CHUNK` tokens at a time.

Legend: N tokens, H hidden size, V words.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

Kind = Literal["reverse_kl", "forward_kl", "jsd"]
BETA = {"forward_kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}
"""TRL's name of each."""
CHUNK = 256
"""Tokens whose logits are there at once with `top_k`, of both models."""
FLOOR = -69.0
"""Log-probability (1e-30) below which all other tokens together count as nothing."""

_KERNEL = (
    *("student_hidden", "student_weight", "student_bias"),
    *("teacher_hidden", "teacher_weight", "teacher_bias", "beta", "temperature"),
    *("student_logit_scale", "student_final_logit_softcapping"),
    *("teacher_logit_scale", "teacher_final_logit_softcapping"),
)
if tuple(inspect.signature(ChunkedDivergenceFunction.forward).parameters)[1:] != _KERNEL:
    raise ImportError("trl's ChunkedDivergenceFunction has changed; install trl>=1.16,<1.17")


@dataclass(frozen=True)
class Head:
    """An output head: `weight` [V, H], `bias` [V], and what the model does to its logits."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, H] -> [n, V], float32."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(hidden.device.type, enabled=False):
            logits = torch.nn.functional.linear(hidden.float(), self.weight.float(), bias)
        logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def head_of(model: Any) -> Head:
    """The output head of a causal model, an adapter around it or not."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None)
    if scale is None and (divisor := getattr(config, "logits_scaling", None)) is not None:
        scale = 1 / divisor
    weight, bias = head.weight, head.bias
    if isinstance(weight, DTensor):  # FSDP2: gathered once, not for each tile
        weight, bias = weight.full_tensor(), None if bias is None else bias.full_tensor()
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(weight, bias, 1.0 if scale is None else float(scale), softcap)


def token_divergence(
    student: Tensor,
    student_head: Head,
    teacher: Tensor,
    teacher_head: Head,
    kind: Kind,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Divergence at each token, in nats, and the entropy of the student there.

    Args:
        student: hidden states before the head, [N, H]; a gradient goes here and to its head.
        student_head: the student's.
        teacher: hidden states of the same tokens [N, H']; gets no gradient.
        teacher_head: the teacher's, of the same vocabulary.
        kind: which divergence.
        temperature: of both softmaxes.
        top_k: of the teacher's likeliest tokens and the rest; None for the whole vocabulary.

    Returns:
        Two tensors [N] float32; the entropy has no gradient.
    """
    teacher = teacher.detach()
    if top_k is not None:
        return _of_top_k(student, student_head, teacher, teacher_head, kind, temperature, top_k)
    divergence, entropy = ChunkedDivergenceFunction.apply(
        student,
        student_head.weight,
        student_head.bias,
        teacher,
        teacher_head.weight.detach(),
        None if teacher_head.bias is None else teacher_head.bias.detach(),
        BETA[kind],
        temperature,
        student_head.scale,
        student_head.softcap,
        teacher_head.scale,
        teacher_head.softcap,
    )
    return divergence, entropy


def at_most(divergence: Tensor, limit: float | None) -> Tensor:
    """min(divergence, limit) a token; above the limit the gradient is scaled down alike.

    A hard minimum would drop the gradient of the tokens where student and teacher differ most.

    Args:
        divergence: [N], in nats.
        limit: in nats; None for none.
    """
    if limit is None:
        return divergence
    found = divergence.detach()
    return divergence * torch.where(found > limit, limit / found, torch.ones_like(found))


def of_events(student: Tensor, teacher: Tensor, kind: Kind) -> Tensor:
    """The plain formula: divergence of log-probabilities [n, events] that sum to one. [n]"""
    if kind == "forward_kl":
        return (teacher.exp() * (teacher - student)).sum(-1)
    if kind == "reverse_kl":
        return (student.exp() * (student - teacher)).sum(-1)
    mean = torch.logaddexp(student, teacher) - math.log(2)
    both = teacher.exp() * (teacher - mean) + student.exp() * (student - mean)
    return both.sum(-1) / 2


def events(logits: Tensor, chosen: Tensor) -> Tensor:
    """Log-probabilities of the chosen tokens, and of all others together: [n, V] -> [n, K + 1].

    Args:
        logits: [n, V].
        chosen: K different tokens a row, fewer than V. [n, K]
    """
    total = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, chosen, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, chosen) - total, (others - total).clamp(min=FLOOR)], -1)


def _of_top_k(
    student: Tensor,
    student_head: Head,
    teacher: Tensor,
    teacher_head: Head,
    kind: Kind,
    temperature: float,
    top_k: int,
) -> tuple[Tensor, Tensor]:
    # With one token less than there are, the rest is that token, and nothing is left out.
    count = min(top_k, len(teacher_head.weight) - 1)

    def chunk(hidden: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = teacher_head.logits(seen) / temperature
            chosen = wanted.topk(count, -1).indices
            target = events(wanted, chosen)
        logits = student_head.logits(hidden) / temperature
        divergence = of_events(events(logits, chosen), target, kind)
        with torch.no_grad():
            logp = logits.log_softmax(-1)
            entropy = -(logp.exp() * logp).sum(-1)
        return divergence, entropy

    # Logits are made again in the backward pass, so that those of one chunk are kept at most.
    parts = [
        checkpoint(chunk, *pair, use_reentrant=False)
        for pair in zip(student.split(CHUNK), teacher.split(CHUNK), strict=True)
    ]
    divergences, entropies = zip(*parts, strict=True)
    return torch.cat(divergences), torch.cat(entropies)
