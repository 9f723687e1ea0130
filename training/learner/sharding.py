"""How the learner's model is spread over processes: none | ddp | fsdp2 | deepspeed. One small interface for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from configs.training import LearnerConfig, OptimizerConfig


class Sharded(Protocol):
    """A model that several processes train together. Losses are shares that add up over the ranks."""

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]: ...

    def backward(self, loss: Tensor, last: bool) -> None: ...

    def step(self, lr: float) -> float: ...

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]: ...

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


def adamw(parameters: Any, config: OptimizerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


class Single:
    """One process."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig) -> None:
        self.module = module
        self.clip_norm = optimizer.clip_norm
        self.optimizer = adamw(self._trained(module), optimizer)

    def _trained(self, module: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        return self.module(**inputs)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = torch.nn.utils.clip_grad_norm_(self._trained(self.module), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.module.state_dict().items()

    def state(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class Ddp(Single):
    """A whole copy on every rank; gradients are averaged, so a share of the loss is scaled by the number of ranks."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig, world: int, device: torch.device) -> None:
        super().__init__(module, optimizer)
        self.world = world
        self.wrapped = nn.parallel.DistributedDataParallel(
            module, device_ids=[device.index] if device.type == "cuda" else None, find_unused_parameters=False
        )

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        return self.wrapped(**inputs)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.wrapped.require_backward_grad_sync = last
        (loss * self.world).backward()
        self.wrapped.require_backward_grad_sync = True


class Fsdp2(Single):
    """Parameters, gradients and optimiser state cut over the ranks (torch's fully_shard), layer by layer."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig, world: int, layers: Any) -> None:
        from torch.distributed.fsdp import fully_shard

        for layer in layers:
            fully_shard(layer)
        fully_shard(module)
        super().__init__(module, optimizer)
        self.world = world

    def backward(self, loss: Tensor, last: bool) -> None:
        (loss * self.world).backward()

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.module.state_dict().items():  # a collective: the same order on every rank
            yield name, tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class DeepSpeed:
    """ZeRO 0-3, called directly (through Accelerate it is silently ignored on a CPU). Asserts the stage."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig, learner: LearnerConfig, world: int) -> None:
        import deepspeed

        self.module, self.world = module, world
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optimizer.clip_norm,
            "zero_optimization": {"stage": learner.deepspeed_stage, "reduce_scatter": True},
            "zero_allow_untested_optimizer": True,
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

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        return self.engine(**inputs)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        return float(self.engine.get_global_grad_norm() or 0.0)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        for name, parameter in self.module.named_parameters():  # a collective for stage 3
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.engine.zero_optimization_stage() == 3):
                yield name, parameter.detach().clone()

    def state(self) -> dict[str, Any]:
        raise TypeError("DeepSpeed writes its own checkpoint: use save_checkpoint")

    def load(self, state: dict[str, Any]) -> None:
        raise TypeError("DeepSpeed reads its own checkpoint: use load_checkpoint")


def shard(
    module: nn.Module, layers: Any, optimizer: OptimizerConfig, learner: LearnerConfig, world: int, device: torch.device
) -> Sharded:
    """The module under the configured sharding; several processes need an initialised process group."""
    if learner.sharding == "ddp":
        return Ddp(module, optimizer, world, device)
    if learner.sharding == "fsdp2":
        return Fsdp2(module, optimizer, world, layers)
    if learner.sharding == "deepspeed":
        return DeepSpeed(module, optimizer, learner, world)
    return Single(module, optimizer)
