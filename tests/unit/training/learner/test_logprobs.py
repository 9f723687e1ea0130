"""Log-probabilities and entropies of chosen tokens, in chunks."""

from __future__ import annotations

import pytest
import torch

from training.learner.logprobs import chosen_logprobs

TOKEN_IDS = torch.tensor([[0, 3, 1, 2], [1, 1, 4, 0]])
MASK = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])


def parts() -> tuple[torch.Tensor, torch.nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(2, 4, 8, requires_grad=True), torch.nn.Linear(8, 5)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_chunks_of_any_size_equal_the_whole_softmax(chunk: int) -> None:
    hidden, head = parts()
    logp, entropy = chosen_logprobs(hidden, head, TOKEN_IDS, MASK, temperature=0.5, chunk=chunk)
    whole = torch.log_softmax(head(hidden) / 0.5, -1)
    for row, column in ((0, 1), (0, 3), (1, 2)):
        before = whole[row, column - 1]
        assert logp[row, column].item() == pytest.approx(before[TOKEN_IDS[row, column]].item(), abs=1e-6)
        assert entropy[row, column].item() == pytest.approx(-(before.exp() * before).sum().item(), abs=1e-6)
    assert int((logp != 0).sum()) == 3


def test_entropy_has_a_gradient_only_where_it_is_asked_for() -> None:
    hidden, head = parts()
    _, free = chosen_logprobs(hidden, head, TOKEN_IDS, MASK, 1.0, 2, entropy_gradient=False)
    _, bound = chosen_logprobs(hidden, head, TOKEN_IDS, MASK, 1.0, 2, entropy_gradient=True)
    assert not free.requires_grad
    assert bound.requires_grad
    assert torch.equal(free, bound.detach())


def test_entropy_without_gradient_leaves_the_gradient_of_the_log_probabilities_as_it_is() -> None:
    gradients = []
    for asked in (False, True):
        hidden, head = parts()
        chosen_logprobs(hidden, head, TOKEN_IDS, MASK, 1.0, 2, entropy_gradient=asked)[0].sum().backward()
        gradients.append(hidden.grad)
    assert torch.equal(*gradients)


def test_no_chosen_token_gives_zeros_and_a_graph() -> None:
    hidden, head = parts()
    logp, _ = chosen_logprobs(hidden, head, TOKEN_IDS, torch.zeros_like(MASK), 1.0, 2)
    logp.sum().backward()
    assert hidden.grad is not None
    assert bool((logp == 0).all())
