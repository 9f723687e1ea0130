"""Tensors of every kind arrive as they were, in however many files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.weights import shards
from deployments.weights.manifest import DTYPE_CODES, Kind
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import Pairs, load, pairs, same


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DTYPE_CODES)),
            st.lists(st.integers(0, 5), max_size=3),
            st.text(min_size=1, max_size=12),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda t: t[2],
    ),
    st.integers(16, 400),
    st.sampled_from(["full", "adapter"]),
)
def test_every_dtype_shape_and_name_survives(
    specs: list[tuple[str, list[int], str]], max_shard_bytes: int, kind: Kind
) -> None:
    tensors: Pairs = []
    for index, (dtype, shape, name) in enumerate(specs):
        if kind == "adapter" and dtype not in ("float32", "int32", "uint32"):
            dtype = "float32"  # one file: mixed widths would leave tensors unaligned
        raw = torch.arange(index, index + 8 * torch.Size(shape).numel(), dtype=torch.int64).to(torch.uint8)
        target = getattr(torch, dtype)
        count = torch.Size(shape).numel()
        value = raw[: count * target.itemsize].clone().view(target) if target != torch.bool else raw[:count] % 2 == 0
        tensors.append((f"t.{name}", value.reshape(shape)))
    with tempfile.TemporaryDirectory() as folder:
        store = WeightStore(folder)
        store.publish(0, iter(tensors), kind=kind, max_shard_bytes=max_shard_bytes)
        assert same(load(store.fetch(0)), tensors)


def test_a_strided_view_arrives_contiguous(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, [("t", torch.arange(6.0).reshape(2, 3).t())])
    assert torch.equal(load(store.fetch(1))["t"], torch.arange(6.0).reshape(2, 3).t())


def test_a_large_model_is_cut_into_files_that_transformers_can_read(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    config.save_pretrained(tmp_path / "config")
    store = WeightStore(str(tmp_path / "store"))
    manifest = store.publish(1, model.named_parameters(), tmp_path / "config", max_shard_bytes=2000)
    assert len(manifest.shards) > 1
    assert [file.name for file in manifest.files] == ["config.json"]
    again = Qwen2ForCausalLM.from_pretrained(store.fetch(1).folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_more_tensors_than_a_header_holds_go_into_the_next_file(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    many = pairs(tensors=700)
    assert len(store.publish(1, many).shards) > 1
    assert same(load(store.fetch(1)), many)


def test_several_files_are_written_at_once_without_mixing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LANES", 3)
    monkeypatch.setattr(shards, "LANE_BACKLOG_BYTES", 1)
    monkeypatch.setattr(shards, "SMALL_BYTES", 0)
    store = WeightStore(str(tmp_path))
    tensors = [(f"t{i}", torch.rand(50_000 + i)) for i in range(40)]
    store.publish(1, tensors)
    assert same(load(store.fetch(1)), tensors)


def test_an_adapter_is_one_file_in_the_layout_of_peft(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"old")
    store = WeightStore(str(tmp_path / "store"))
    store.publish(1, pairs(tensors=900), tmp_path / "adapter", kind="adapter")
    fetched = store.fetch(1)
    names = sorted(path.name for path in fetched.folder.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert fetched.manifest.kind == "adapter"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "no tensors"),
        ([("a", torch.ones(1)), ("a", torch.ones(1))], "given twice"),
        ([("a", torch.ones(1, dtype=torch.complex128))], "complex128"),
    ],
)
def test_unusable_tensors_are_refused_and_leave_no_trace(tmp_path: Path, tensors: Pairs, message: str) -> None:
    store = WeightStore(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        store.publish(1, tensors)
    assert list(tmp_path.iterdir()) == []
