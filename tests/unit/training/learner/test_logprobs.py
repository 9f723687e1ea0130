"""Log-probabilities and entropies of chosen tokens, in chunks."""

from __future__ import annotations

import pytest
import torch

from training.learner import logprobs
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


@pytest.mark.parametrize("block", [1, 16 * 2**20])
@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("entropy_weight", [0.0, 1.0])
def test_gradients_equal_those_of_the_whole_softmax(
    entropy_weight: float, chunk: int, block: int, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of log-probabilities alone and with entropies, each token with a weight of its own."""
    monkeypatch.setattr(logprobs, "BLOCK_BYTES", block)
    of_logp, of_entropy = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1))
    of_entropy = of_entropy * entropy_weight

    def gradients(whole: bool) -> list[torch.Tensor]:
        hidden, linear = parts()

        def head(states: torch.Tensor) -> torch.Tensor:
            return linear(states) if cap is None else torch.tanh(linear(states) / cap) * cap

        if whole:
            scores = torch.log_softmax(head(hidden)[:, :-1] / 0.5, -1)
            logp = scores.gather(-1, TOKEN_IDS[:, 1:, None])[..., 0] * MASK[:, 1:]
            entropy = -(scores.exp() * scores).sum(-1) * MASK[:, 1:]
            loss = (of_logp[:, 1:] * logp + of_entropy[:, 1:] * entropy).sum()
        else:
            logp, entropy = chosen_logprobs(
                hidden, head, TOKEN_IDS, MASK, 0.5, chunk, entropy_gradient=entropy_weight > 0
            )
            loss = (of_logp * logp + of_entropy * entropy).sum()
        return list(torch.autograd.grad(loss, [hidden, linear.weight, linear.bias]))

    for expected, got in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(got, expected)


def test_logits_in_bfloat16_are_scored_and_differentiated_in_float32() -> None:
    gradients = []
    for rounded_after in (False, True):
        hidden, linear = parts()

        def head(
            states: torch.Tensor, linear: torch.nn.Linear = linear, rounded_after: bool = rounded_after
        ) -> torch.Tensor:
            logits = linear(states).bfloat16()
            return logits.float() if rounded_after else logits

        logp, _ = chosen_logprobs(hidden, head, TOKEN_IDS, MASK, 0.5, 2)
        assert logp.dtype == torch.float32
        logp.sum().backward()
        gradients.append((logp.detach(), hidden.grad))
    (logp, gradient), (expected_logp, expected) = gradients
    assert torch.equal(logp, expected_logp)
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("chunk", "passes"), [(3, 1), (2, 3), (1, 5)])
def test_only_the_chunks_before_the_last_go_through_the_head_again(chunk: int, passes: int) -> None:
    hidden, linear = parts()
    seen: list[int] = []

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return linear(states)

    logp, _ = chosen_logprobs(hidden, head, TOKEN_IDS, MASK, 1.0, chunk)
    logp.sum().backward()
    assert len(seen) == passes
    assert max(seen) <= chunk


def test_a_second_backward_pass_is_refused_rather_than_wrong() -> None:
    hidden, linear = parts()
    logp, _ = chosen_logprobs(hidden, linear, TOKEN_IDS, MASK, 1.0, 100)
    logp.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logp.sum().backward()


def test_no_chosen_token_gives_zeros_and_a_graph() -> None:
    hidden, head = parts()
    logp, _ = chosen_logprobs(hidden, head, TOKEN_IDS, torch.zeros_like(MASK), 1.0, 2)
    logp.sum().backward()
    assert hidden.grad is not None
    assert bool((logp == 0).all())
