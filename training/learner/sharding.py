"""How the learner's model is spread over processes: none | ddp | fsdp2 | deepspeed. One small interface for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from configs.training import LearnerConfig, OptimizerConfig
from training.learner.loading import Loaded, fill
from training.learner.optimizer import adamw, configure, steps_of, with_state
from training.learner.policy import Policy, Scored
from training.learner.precision import autocast


class Sharded(Protocol):
    """A model that several processes train together. Losses are shares that add up over the ranks.

    One update: for each micro-batch `reduce_gradients`, `forward`, `backward`; then `step`.
    """

    def reduce_gradients(self, now: bool) -> None:
        """Before a forward pass: whether its backward pass sums the gradients over the ranks. Only that of an update's
        last micro-batch has to."""

    def forward(self, **inputs: Any) -> Scored: ...

    def backward(self, loss: Tensor) -> None: ...

    def step(self, lr: float) -> float:
        """Clips, steps, forgets the gradients. Returns the gradient norm before clipping, of all ranks together and
        equal on each. Where it is not finite nothing is changed: no step, and the gradients are forgotten."""

    def unit_gradient(self) -> float:
        """The gradient of the policy's `unit` after an update's last backward pass, of all ranks together; a
        collective."""

    def steps_taken(self) -> int:
        """How many steps the optimiser's state has seen: the fewest of the parameters that have stepped."""

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, whole tensor) of every parameter; a collective."""

    def save(self, folder: Path, rank: int) -> None:
        """This rank's part of weights and optimiser state, exactly; every rank calls it with the same folder."""

    def load(self, folder: Path, rank: int) -> None:
        """What `save` wrote with the same number of ranks."""


class Single:
    """One process."""

    def __init__(self, module: Policy, optimizer: OptimizerConfig, compute: torch.dtype = torch.float32) -> None:
        self.module, self.compute = module, compute
        self.clip_norm = optimizer.clip_norm
        self._settings = optimizer
        self.optimizer = with_state(adamw(self._trained(module), optimizer))

    def _trained(self, module: Policy) -> list[nn.Parameter]:
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    def reduce_gradients(self, now: bool) -> None:
        """One process has nothing to reduce."""

    def forward(self, **inputs: Any) -> Scored:
        with autocast(self.module, self.compute):
            return self.module(**inputs)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        clipped = torch.nn.utils.clip_grad_norm_(self._trained(self.module), self.clip_norm)
        norm = float(clipped.full_tensor() if hasattr(clipped, "full_tensor") else clipped)
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def unit_gradient(self) -> float:
        gradient: Any = self.module.unit.grad
        whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        return float(whole.sum())

    def steps_taken(self) -> int:
        return steps_of(self.optimizer)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.module.state_dict().items()

    def save(self, folder: Path, rank: int) -> None:
        state = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, _part(folder, rank))

    def load(self, folder: Path, rank: int) -> None:
        state = torch.load(_part(folder, rank), map_location="cpu", weights_only=False)
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        configure(self.optimizer, self._settings)


class Ddp(Single):
    """A whole copy on every rank; gradients are averaged, so a share of the loss is scaled by the number of ranks."""

    def __init__(
        self, module: Policy, optimizer: OptimizerConfig, compute: torch.dtype, world: int, device: torch.device
    ) -> None:
        super().__init__(module, optimizer, compute)
        self.world = world
        self.wrapped = nn.parallel.DistributedDataParallel(
            module, device_ids=[device.index] if device.type == "cuda" else None, find_unused_parameters=False
        )

    def reduce_gradients(self, now: bool) -> None:
        self.wrapped.require_backward_grad_sync = now  # read in forward, as by DistributedDataParallel.no_sync

    def forward(self, **inputs: Any) -> Scored:
        with autocast(self.module, self.compute):
            return self.wrapped(**inputs)

    def backward(self, loss: Tensor) -> None:
        (loss * self.world).backward()


class Fsdp2(Single):
    """Parameters, gradients and optimiser state cut over the ranks (torch's fully_shard), layer by layer.

    Gradients are reduced once per update: between its micro-batches each rank holds a whole, unreduced gradient.
    """

    def __init__(self, loaded: Loaded, optimizer: OptimizerConfig, compute: torch.dtype, world: int) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # Autocast would hold a bfloat16 copy of the whole model until the forward pass ends; this casts a layer when it
        # is gathered. Gradients are summed in float32.
        lower = compute if compute != torch.float32 else None
        mixed = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=torch.float32)
        module = loaded.policy
        for layer in module.layers:
            fully_shard(layer, mp_policy=mixed)
        self.root = fully_shard(module, mp_policy=replace(mixed, output_dtype=torch.float32))
        if loaded.weights is not None:
            fill(module, loaded.weights)
        super().__init__(module, optimizer)
        self.world = world

    def reduce_gradients(self, now: bool) -> None:
        self.root.set_requires_gradient_sync(now)

    def backward(self, loss: Tensor) -> None:
        (loss * self.world).backward()

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.module.state_dict().items():  # a collective: the same order on every rank
            yield name, tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class DeepSpeed:
    """ZeRO 0-3, called directly (through Accelerate it is silently ignored on a CPU). Asserts the stage."""

    def __init__(
        self, module: Policy, optimizer: OptimizerConfig, compute: torch.dtype, world: int, learner: LearnerConfig
    ) -> None:
        import deepspeed

        # On a CPU it would compile its shared-memory collectives at the first start on a machine, half a minute of both
        # cores, and fail without a compiler; gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.module, self.world, self.stage = module, world, learner.deepspeed_stage
        self._settings = optimizer
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optimizer.clip_norm,
            "zero_optimization": {"stage": learner.deepspeed_stage, "reduce_scatter": True},
            "zero_allow_untested_optimizer": True,
            # It switches an autocast around it off. No modules: those named here would reduce their gradients in it.
            "torch_autocast": {
                "enabled": compute == torch.bfloat16,
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            },
        }
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adamw(parameters, optimizer),
            model_parameters=parameters,
            config=settings,
            dist_init_required=False,
        )
        stage = self.engine.zero_optimization_stage()
        if stage != learner.deepspeed_stage:
            raise RuntimeError(f"DeepSpeed runs ZeRO stage {stage}, not the configured {learner.deepspeed_stage}")

    def reduce_gradients(self, now: bool) -> None:
        """Stages 0 and 1 reduce at the boundary alone; 2 and 3 hold only parts of a gradient, so reduce each time."""
        self.engine.set_gradient_accumulation_boundary(now)

    def forward(self, **inputs: Any) -> Scored:
        return self.engine(**inputs)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.stage == 0:  # clips without telling the norm, and steps whatever it is
            norm = _norm(self.module)
            if not math.isfinite(norm):
                self.engine.zero_grad()
                return norm
        self.engine.step()  # ZeRO 1-3 skip a step whose norm is not finite, and say that it is inf
        return norm if self.stage == 0 else float(self.engine.get_global_grad_norm())

    def unit_gradient(self) -> float:
        from deepspeed.utils import safe_get_full_grad

        return float(safe_get_full_grad(self.module.unit).sum())

    def steps_taken(self) -> int:
        return steps_of(getattr(self.optimizer, "optimizer", self.optimizer))

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        for name, parameter in self.module.named_parameters():  # a collective for stage 3
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                yield name, parameter.detach().clone()

    def save(self, folder: Path, rank: int) -> None:
        self.engine.save_checkpoint(str(folder), tag="deepspeed")

    def load(self, folder: Path, rank: int) -> None:
        self.engine.load_checkpoint(str(folder), tag="deepspeed")
        configure(self.optimizer, self._settings)


def shard(
    loaded: Loaded,
    optimizer: OptimizerConfig,
    compute: torch.dtype,
    learner: LearnerConfig,
    world: int,
    device: torch.device,
) -> Sharded:
    """The module under the configured sharding; several processes need an initialised process group. `compute`: what
    forward and backward passes compute in."""
    module = loaded.policy
    if learner.sharding == "ddp":
        return Ddp(module, optimizer, compute, world, device)
    if learner.sharding == "fsdp2":
        return Fsdp2(loaded, optimizer, compute, world)
    if learner.sharding == "deepspeed":
        return DeepSpeed(module, optimizer, compute, world, learner)
    return Single(module, optimizer, compute)


def _part(folder: Path, rank: int) -> Path:
    return folder / f"model-and-optimizer{rank}.pt"


def _norm(module: Policy) -> float:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
