"""Faults of the learner: its forward pass, its loss, its updates, its ranks, and what a resume restores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from training.certify.mutants import Mutant
from training.certify.swapping import swapped
from training.types import Sample

Fault = AbstractContextManager[None]
TIS = "algorithm.off_policy=tis"
KL = "algorithm.kl_coef=0.1"


@contextmanager
def dropout_on() -> Iterator[None]:
    from torch import nn

    from training.learner.policy import Policy

    def training(original: Any) -> Any:
        def train(self: Policy, mode: bool = True) -> Policy:
            nn.Module.train(self, True)
            for module in self.model.modules():
                if hasattr(module, "attention_dropout"):
                    module.attention_dropout = 0.2
            return self

        return train

    with swapped(Policy, "train", training):
        yield


def head_alone() -> Fault:
    """Logits are what the head gives; what the model does behind it is left out."""
    from training.learner import policy

    return swapped(policy, "logits_of", lambda original: lambda model, hidden: model.lm_head(hidden))


def ratio_twice() -> Fault:
    from training.learner import learner

    def doubled(original: Any) -> Any:
        return lambda logp, sampler_logp, mask, config: replace(
            original(logp, sampler_logp, mask, config), logp=sampler_logp
        )

    return swapped(learner, "behaviour", doubled)


def loss_sign_wrong() -> Fault:
    from training.algorithms import objective

    def negative(original: Any) -> Any:
        return {name: lambda *given, loss=loss: -loss(*given) for name, loss in original.items()}

    return swapped(objective, "LOSSES", negative)


def kl_sign_wrong() -> Fault:
    from training.algorithms import objective

    return swapped(objective, "kl_to_reference", lambda original: lambda *given: -original(*given))


def reference_is_policy() -> Fault:
    from training.learner.learner import Learner

    def aliased(original: Any) -> Any:
        def init(self: Any, *given: Any, **named: Any) -> None:
            original(self, *given, **named)
            self._reference.policy = self.policy

        return init

    return swapped(Learner, "__init__", aliased)


def gradients_kept() -> Fault:
    import torch

    return swapped(torch.optim.AdamW, "zero_grad", lambda original: lambda self, *given, **named: None)


def own_denominators() -> Fault:
    """Each rank divides by the numbers of its own share."""
    from training.learner.learner import Learner

    def own(original: Any) -> Any:
        def update(self: Any, batch: Any) -> Any:
            tokens = sum(sample.chosen for sample in batch.samples)
            whole = replace(batch.denominators, tokens=tokens, trained_tokens=tokens)
            return original(self, replace(batch, denominators=whole))

        return update

    return swapped(Learner, "update", own)


def reduced_twice() -> Fault:
    import torch.distributed as dist

    from training.learner.sharding import Ddp

    def again(original: Any) -> Any:
        def backward(self: Any, loss: Any) -> None:
            original(self, loss)
            if self.wrapped.require_backward_grad_sync:
                for parameter in self.module.parameters():
                    dist.all_reduce(parameter.grad)

        return backward

    return swapped(Ddp, "backward", again)


def earlier_step() -> Fault:
    from training.learner import checkpoint

    def off(original: Any) -> Any:
        def restore(*given: Any, **named: Any) -> dict[str, Any]:
            state: dict[str, Any] = original(*given, **named)
            return {**state, "step": state["step"] - 1}

        return restore

    return swapped(checkpoint, "restore", off)


def moments_lost() -> Fault:
    from training.learner.sharding import Single

    def weights_only(original: Any) -> Any:
        def load(self: Any, *given: Any) -> None:
            original(self, *given)
            self.optimizer.state.clear()

        return load

    return swapped(Single, "load", weights_only)


def sequences_cut() -> Fault:
    """What is over a length is cut off a sequence, and its images stay whole."""
    from training.learner import learner

    def cut(original: Any) -> Any:
        def microbatches(samples: Any, *given: Any, **named: Any) -> Any:
            return original([_first_half(sample) for sample in samples], *given, **named)

        return microbatches

    return swapped(learner, "microbatches", cut)


def _first_half(sample: Sample) -> Sample:
    """With one token chosen at its end, so that there is something to learn."""
    half = len(sample.token_ids_T) // 2
    ids, logp = tuple(sample.token_ids_T[:half]), tuple(sample.sampler_logp_T[:half])
    return replace(sample, token_ids_T=ids, mask_T=(0,) * (half - 1) + (1,), sampler_logp_T=logp)


LEARNER = (
    Mutant(
        "dropout left on",
        "the learner drops a fifth of the attention, the sampler does not",
        "noisy ratios; a policy that learns against its own noise",
        dropout_on,
        sources=("huggingface/trl#3234", "arXiv:2403.17031"),
        caught_by=("own forward",),
    ),
    Mutant(
        "logit scale left out",
        "the learner's logits are not divided as Granite's own forward divides them",
        "another temperature in the learner than in the sampler",
        head_alone,
        where="start",
        family="granite",
        sources=("huggingface/trl#5691",),
        caught_by=("own forward",),
    ),
    Mutant(
        "soft cap left out",
        "the learner's logits are not capped as Gemma 2's own forward caps them",
        "ratios that are wrong where the policy is sure",
        head_alone,
        where="start",
        family="gemma2",
        sources=("unslothai/unsloth-zoo#593", "apple/ml-cross-entropy#48"),
        caught_by=("own forward",),
    ),
    Mutant(
        "off-policy ratio counted twice",
        "the difference to the sampler is in the ratio and in the truncated weight",
        "a curve that looks right and learns too much from what the sampler likes less than the learner",
        ratio_twice,
        settings=(TIS,),
        sources=("THUDM/slime#179",),
        caught_by=("first ratio",),
    ),
    Mutant(
        "loss with the wrong sign",
        "what paid becomes less likely",
        "a return that falls, and is blamed on the learning rate",
        loss_sign_wrong,
        caught_by=("loss slope",),
    ),
    Mutant(
        "KL with the wrong sign",
        "the KL term drives the policy away from the reference",
        "a KL divergence that grows, as it does in healthy runs, too",
        kl_sign_wrong,
        settings=(KL,),
        sources=("qiancheng0/ToolRL#52", "arXiv:2506.09477"),
        caught_by=("kl slope",),
    ),
    Mutant(
        "reference that moves",
        "the reference model shares the policy's weights",
        "a KL divergence of 0 and a policy that nothing holds",
        reference_is_policy,
        settings=(KL,),
        sources=("huggingface/trl#2046", "huggingface/peft#736"),
        caught_by=("reference",),
    ),
    Mutant(
        "gradients kept",
        "an update begins with the gradients of the one before it",
        "a momentum that nobody set",
        gradients_kept,
        sources=("meta-pytorch/torchforge#71",),
        caught_by=("unit gradient",),
    ),
    Mutant(
        "denominator per rank",
        "each rank divides its loss by its own tokens",
        "tokens that weigh more on a rank with few of them",
        own_denominators,
        where="ranks",
        sources=("PrimeIntellect-ai/prime-rl#2562", "allenai/open-instruct#1161"),
        caught_by=(
            "trained tokens",
            "unit gradient",
        ),
    ),
    Mutant(
        "gradient reduced twice",
        "gradients are summed over the ranks by the wrapper and once more by hand",
        "a learning rate that grows with the number of GPUs, hidden by the clip of the norm",
        reduced_twice,
        where="ranks",
        sources=("verl-project/verl-SpeCo#29", "meta-pytorch/torchtune#2172"),
        caught_by=("unit gradient",),
    ),
    Mutant(
        "wrong resume step",
        "a resumed run goes on one step before its checkpoint",
        "a schedule, a task stream and weights that do not belong together",
        earlier_step,
        where="resume",
        sources=("verl-project/verl#4156", "verl-project/verl#5725"),
        caught_by=("step count",),
    ),
    Mutant(
        "optimiser state lost on resume",
        "a resumed run has its weights, and moments that begin anew",
        "a small dip after each resume",
        moments_lost,
        where="resume",
        sources=("thinking-machines-lab/tinker-feedback#127", "PrimeIntellect-ai/prime-rl#1311"),
        caught_by=("optimizer state",),
    ),
    Mutant(
        "image tokens and pixels cut apart",
        "a sequence that is too long loses image tokens and keeps its pixels",
        "a crash of the learner, or pictures that belong to other text",
        sequences_cut,
        where="images",
        sources=("PrimeIntellect-ai/prime-rl#2013", "hiyouga/EasyR1#76"),
        caught_by=("image tokens",),
    ),
)
