"""Divergences by hand, their gradients, the bound of a token, and the rest as one event."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trimpi.stages.divergence import (
    BETA,
    Head,
    at_most,
    events,
    head_of,
    of_events,
    token_divergence,
)

KINDS = sorted(BETA)
STUDENT, TEACHER = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
LOG2 = math.log(2)
BY_HAND = {
    "forward_kl": 0.25 * LOG2,  # 1/4 log 1/2 + 1/4 log 1 + 1/2 log 2
    "reverse_kl": 0.25 * LOG2,
    "jsd": 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3),  # m = (3/8, 1/4, 3/8)
}


def as_states(*rows: list[float]) -> tuple[Tensor, Head]:
    """Hidden states whose head gives these probabilities: the logits themselves."""
    logits = torch.tensor(rows).log()
    return logits.requires_grad_(), Head(torch.eye(logits.shape[1]))


def plain(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    """The formula as it is written, over whole logits."""
    p, q = student.softmax(-1), teacher.softmax(-1)
    m = (p + q) / 2
    kl = {
        "forward_kl": (q * (q / p).log()).sum(-1),
        "reverse_kl": (p * (p / q).log()).sum(-1),
        "jsd": ((q * (q / m).log()).sum(-1) + (p * (p / m).log()).sum(-1)) / 2,
    }
    return kl[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_three_tokens_by_hand(kind: Any) -> None:
    student, head = as_states(STUDENT, TEACHER)
    teacher, other = as_states(TEACHER, TEACHER)
    found, entropy = token_divergence(student, head, teacher, other, kind)
    assert found.tolist() == pytest.approx([BY_HAND[kind], 0.0], abs=1e-6)
    assert entropy.tolist() == pytest.approx([1.5 * LOG2] * 2)
    assert of_events(student, teacher, kind).tolist() == pytest.approx([BY_HAND[kind], 0], abs=1e-6)


def test_forward_and_reverse_differ_where_they_must() -> None:
    """KL((1/2, 1/2) || (3/4, 1/4)) and the other way round."""
    student, head = as_states([0.5, 0.5])
    teacher, _ = as_states([0.75, 0.25])
    forward, _ = token_divergence(student, head, teacher, head, "forward_kl")
    reverse, _ = token_divergence(student, head, teacher, head, "reverse_kl")
    assert float(forward) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)
    assert float(reverse) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [None, 6])
def test_gradient_is_that_of_the_plain_formula_and_the_teacher_gets_none(
    kind: Any, top_k: int | None
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4), torch.randn(7, 4)
    seen, frozen = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    found = []
    for by_formula in (True, False):
        own, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if by_formula:
            value = plain(own @ head.T / 2, (seen @ frozen.T).detach() / 2, kind)
        else:
            value, _ = token_divergence(own, Head(head), seen, Head(frozen), kind, 2.0, top_k)
        (value * torch.arange(5)).sum().backward()
        found.append((value.detach(), own.grad, head.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5), (a, b)
    assert seen.grad is None and frozen.grad is None


def test_softcap_and_scale_of_the_head_count() -> None:
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4) * 3
    seen = torch.randn(3, 4)
    head = Head(weight, None, 0.5, 2.0)
    by_kernel, _ = token_divergence(hidden, head, seen, head, "reverse_kl")
    logits = [2 * torch.tanh(states @ weight.T * 0.5 / 2) for states in (hidden, seen)]
    assert torch.allclose(by_kernel, plain(*logits, "reverse_kl"), atol=1e-5)
    by_events, _ = token_divergence(hidden, head, seen, head, "reverse_kl", top_k=4)
    assert torch.allclose(by_kernel, by_events, atol=1e-5)


def test_a_head_is_read_from_the_configuration() -> None:
    class Settings:
        logits_scaling, final_logit_softcapping = 4.0, 30.0

        def get_text_config(self) -> Any:
            return self

    class Model:
        config = Settings()

        def get_output_embeddings(self) -> Any:
            return torch.nn.Linear(2, 3, bias=True)

    head = head_of(Model())
    assert (head.scale, head.softcap, head.bias is not None) == (0.25, 30.0, True)
    assert head.logits(torch.zeros(1, 2)).shape == (1, 3)


def test_the_rest_is_one_event() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    found = events(logits, torch.tensor([[3, 1]])).exp()[0]
    assert found.tolist() == pytest.approx([0.4, 0.2, 0.4])


def test_top_k_of_the_teacher_by_hand() -> None:
    """Teacher (.5, .3, .2), student (.25, .25, .5): kept is the first, .5 is the rest of it."""
    student, head = as_states([0.25, 0.25, 0.5])
    teacher, _ = as_states([0.5, 0.3, 0.2])
    found, _ = token_divergence(student, head, teacher, head, "forward_kl", top_k=1)
    assert float(found) == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    # The others' own shares do not matter: the gradient moves mass to and from all of them alike.
    found.sum().backward()
    assert student.grad is not None
    moved = student.grad[0]
    assert float(moved[1] / moved[2]) == pytest.approx(0.25 / 0.5)


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 8))
def test_fewer_events_differ_less(seed: int, kind: Any, count: int) -> None:
    """Data processing inequality; with all tokens but one nothing is left out."""
    generator = torch.Generator().manual_seed(seed)
    hidden, seen = (torch.randn(3, 4, generator=generator) for _ in range(2))
    head = Head(torch.randn(9, 4, generator=generator))
    whole, _ = token_divergence(hidden, head, seen, head, kind)
    part, _ = token_divergence(hidden, head, seen, head, kind, top_k=count)
    assert bool((part <= whole + 1e-4).all()) and bool((part >= -1e-5).all())
    if count == 8:
        assert torch.allclose(part, whole, atol=1e-4)
    more, _ = token_divergence(hidden, head, seen, head, kind, top_k=99)
    assert torch.allclose(more, whole, atol=1e-4)


def test_many_tokens_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, seen, head = torch.randn(7, 4), torch.randn(7, 4), Head(torch.randn(5, 4))
    whole, entropy = token_divergence(hidden, head, seen, head, "jsd", top_k=2)
    monkeypatch.setattr("trimpi.stages.divergence.CHUNK", 3)
    cut, same = token_divergence(hidden, head, seen, head, "jsd", top_k=2)
    assert torch.allclose(whole, cut) and torch.allclose(entropy, same)


def test_a_token_counts_for_so_much_at_most_and_its_direction_stays() -> None:
    value = torch.tensor([0.0, 0.5, 4.0], requires_grad=True)
    limited = at_most(value, 1.0)
    assert limited.tolist() == [0.0, 0.5, 1.0]
    limited.sum().backward()
    assert value.grad is not None and value.grad.tolist() == [1.0, 1.0, 0.25]
    assert at_most(value, None) is value
