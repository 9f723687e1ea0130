"""Weights reach an engine on a GPU by every transport, and the engine then samples from exactly these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
PROMPT = [5, 17, 3, 60, 9, 44, 21, 8]


def build(folder: Path, seed: int, tied: bool) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=128,
        initializer_range=0.2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    model.save_pretrained(folder)
    return model.cuda()


@pytest.fixture(
    params=[("rayward_store", False), ("rayward_store", True), ("rayward_ipc", False), ("rayward_nccl", False)], ids=str
)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Any, Any]]:
    """(backend, vllm.LLM on this GPU, learner's model of other weights). NCCL needs a second GPU for the learner."""
    backend, tied = request.param
    if backend == "rayward_nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL cannot put two ranks on one GPU")
    patch = pytest.MonkeyPatch()
    patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    from vllm import LLM

    build(tmp_path / "a", 0, tied)
    llm = LLM(
        str(tmp_path / "a"),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=128,
        max_num_seqs=4,
        gpu_memory_utilization=0.3,
        logprobs_mode="processed_logprobs",
        weight_transfer_config={"backend": backend},
    )
    device = f"cuda:{torch.cuda.device_count() - 1}" if backend == "rayward_nccl" else "cuda:0"
    torch.cuda.set_device(device)
    yield backend, llm, build(tmp_path / "b", 1, tied).to(device)
    llm.llm_engine.engine_core.shutdown()
    patch.undo()


def test_after_a_publication_sampler_and_learner_agree(policy: tuple[str, Any, Any], tmp_path: Path) -> None:
    from deployments.weights.publishers import StorePublisher
    from deployments.weights.push import IpcPublisher, LlmControl, NcclPublisher
    from deployments.weights.store import WeightStore

    backend, llm, model = policy
    for version in (1, 2):
        if version > 1:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.1)
        if backend == "rayward_store" or version == 2:  # one that was pushed to can pull the next
            store = WeightStore(str(tmp_path / "store"))
            StorePublisher(store).publish(version, model.named_parameters())
            control = LlmControl(llm)
            control.pause()
            control.start_weight_update()
            control.update_weights({"folder": str(store.fetch(version).folder), "version": version})
            control.finish_weight_update(str(version))
        else:
            if version == 1:
                control = LlmControl(llm)
                publisher: Any = (
                    IpcPublisher(control)
                    if backend == "rayward_ipc"
                    else NcclPublisher(control, 1, "127.0.0.1", free_port())
                )
            publisher.publish(version, model.named_parameters())
        assert llm.get_weight_version() == str(version)
        assert largest_difference(llm, model) < 0.1  # bfloat16, other kernels


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def largest_difference(llm: Any, model: Any) -> float:
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=1.0, seed=3, max_tokens=8, logprobs=0, ignore_eos=True, detokenize=False)
    output = llm.generate({"prompt_token_ids": PROMPT}, parameters, use_tqdm=False)[0].outputs[0]
    ids = list(output.token_ids)
    sampled = torch.tensor([entry[token].logprob for entry, token in zip(output.logprobs, ids, strict=True)])
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT + ids], device=model.device)).logits[0].float().cpu()
    scored = torch.log_softmax(logits[len(PROMPT) - 1 : -1], -1)[torch.arange(len(ids)), torch.tensor(ids)]
    return float((sampled - scored).abs().max())
