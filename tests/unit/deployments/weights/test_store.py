"""A weight version is published whole or not at all, arrives as it was published, and is never older than asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from deployments.weights import shards
from deployments.weights.manifest import DTYPE_CODES, Kind, VersionOrder, WeightsCorrupt, WeightsMissing, WeightsTimeout
from deployments.weights.store import Fetched, WeightStore

Pairs = list[tuple[str, torch.Tensor]]


def pairs(value: float = 1.0, tensors: int = 3) -> Pairs:
    return [(f"layers.{i}.weight", torch.full((4, 5), value + i)) for i in range(tensors)]


def load(fetched: Fetched) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = {}
    for shard in fetched.manifest.shards:
        loaded |= load_file(fetched.folder / shard.name)
    return loaded


def same(found: dict[str, torch.Tensor], expected: Pairs) -> bool:
    wanted = dict(expected)
    return found.keys() == wanted.keys() and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and bits(found[n]) == bits(t) for n, t in expected
    )


def bits(tensor: torch.Tensor) -> bytes:
    return b"" if tensor.numel() == 0 else tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture(params=["folder", "uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WeightStore:
    root = tmp_path / "store"
    if request.param == "folder":
        return WeightStore(str(root), keep=2)
    root.mkdir()
    return WeightStore(f"file://{root}", keep=2)


def test_what_is_fetched_is_what_was_published(store: WeightStore, tmp_path: Path) -> None:
    assert store.latest() is None
    assert store.versions() == []
    published = store.publish(7, pairs())
    fetched = store.fetch(7, tmp_path / "cache")
    assert fetched.manifest == published
    assert same(load(fetched), pairs())
    assert store.latest() == 7


@settings(max_examples=40, deadline=None)
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


def test_a_version_must_grow(store: WeightStore) -> None:
    store.publish(3, pairs())
    for version in (3, 2, -1):
        with pytest.raises(VersionOrder, match="cannot follow version 3"):
            store.publish(version, pairs())
    assert store.latest() == 3


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


def test_an_error_in_the_midst_of_publishing_leaves_the_old_version(store: WeightStore, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield from pairs()
        raise RuntimeError("rank 3 is gone")

    store.publish(1, pairs(1.0))
    with pytest.raises(RuntimeError, match="rank 3"):
        store.publish(2, broken())
    assert store.latest() == 1
    assert store.versions() == [1]
    assert same(load(store.fetch(1, tmp_path / "cache")), pairs(1.0))


@pytest.mark.parametrize("moment", ["tensors", "commit", "set_latest"])
def test_a_publisher_killed_at_any_moment_leaves_the_old_version_and_a_new_one_goes_on(
    tmp_path: Path, moment: str
) -> None:
    program = f"""
import os, sys, torch
from deployments.weights.store import WeightStore
store = WeightStore({str(tmp_path)!r})
store.publish(1, [("a", torch.ones(3))])
die = lambda *_: os._exit(9)
if {moment!r} == "tensors":
    tensors = (("a", torch.ones(3)) if i == 0 else die() for i in range(2))
else:
    tensors = [("a", torch.zeros(3))]
    setattr(store._files, {moment!r}, die)
store.publish(2, tensors)
"""
    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 9
    store = WeightStore(str(tmp_path))
    assert store.latest() == 1
    assert store.versions() == [1]
    assert torch.equal(load(store.fetch_at_least(0, 0.0))["a"], torch.ones(3))
    store.publish(2, [("a", torch.full((3,), 5.0))])
    assert torch.equal(load(store.fetch(2))["a"], torch.full((3,), 5.0))
    assert not list(tmp_path.glob(".*"))


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    manifest = store.publish(1, pairs())
    path = tmp_path / "1" / manifest.shards[0].name
    whole = path.read_bytes()
    header_bytes = manifest.shards[0].header_bytes
    for position in (0, 9, 60, header_bytes - 1, header_bytes, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(WeightsCorrupt, match=r"model-00001\.safetensors"):
            WeightStore(str(tmp_path)).fetch(1)
    path.write_bytes(whole[:-1])
    with pytest.raises(WeightsCorrupt, match="bytes instead of"):
        WeightStore(str(tmp_path)).fetch(1)
    path.write_bytes(whole)
    WeightStore(str(tmp_path)).fetch(1)


def test_a_corrupt_tensor_is_named(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    manifest = store.publish(1, pairs())
    path = tmp_path / "1" / manifest.shards[0].name
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(WeightsCorrupt, match=r"layers\.2\.weight.*publish version 1 again"):
        store.fetch(1)


def test_a_manifest_that_was_changed_or_cut_is_found(tmp_path: Path) -> None:
    WeightStore(str(tmp_path)).publish(1, pairs())
    path = tmp_path / "1" / "manifest.json"
    document = json.loads(path.read_text())
    document["tensors"][0]["shape"] = [5, 4]
    for text in (json.dumps(document), path.read_text()[:-9], path.read_text().replace('"version": 1', '"version": 2')):
        path.write_text(text)
        with pytest.raises(WeightsCorrupt):
            WeightStore(str(tmp_path)).fetch(1)


def test_a_spoilt_cache_is_fetched_anew(store: WeightStore, tmp_path: Path) -> None:
    manifest = store.publish(1, pairs())
    cache = tmp_path / "cache"
    spoilt = store.fetch(1, cache).folder / manifest.shards[0].name
    spoilt.unlink()
    spoilt.write_bytes(b"x")
    reader = WeightStore(store.root)
    with pytest.raises(WeightsCorrupt):
        reader.fetch(1, cache)
    assert same(load(reader.fetch(1, cache)), pairs())


def test_a_cache_from_an_earlier_life_of_the_store_is_not_used(store: WeightStore, tmp_path: Path) -> None:
    store.publish(1, pairs(1.0))
    store.fetch(1, tmp_path / "cache")
    store.destroy()
    store.publish(1, pairs(2.0))
    assert same(load(store.fetch(1, tmp_path / "cache")), pairs(2.0))


def test_old_versions_are_pruned_but_stay_for_a_reader_with_a_cache(store: WeightStore, tmp_path: Path) -> None:
    store.publish(1, pairs(1.0))
    mine = store.fetch(1, tmp_path / "cache")
    for version in (2, 3):
        store.publish(version, pairs(float(version)))
    assert store.versions() == [2, 3]
    assert same(load(mine), pairs(1.0))
    with pytest.raises(WeightsMissing, match=r"there: \[2, 3\].*fetch latest") as error:
        WeightStore(store.root).fetch(1, tmp_path / "another")
    assert error.value.retryable


def test_waiting_for_a_version_ends_when_it_comes(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, pairs())
    later = threading.Timer(0.1, lambda: WeightStore(str(tmp_path)).publish(2, pairs(2.0)))
    later.start()
    began = time.monotonic()
    assert store.fetch_at_least(2, deadline_s=10.0).manifest.version == 2
    assert time.monotonic() - began < 5.0
    later.join()


def test_waiting_for_a_version_ends_at_the_deadline(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, pairs())
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 1e-3)

    with pytest.raises(WeightsTimeout, match=r">= 2 .* within 3 s \(latest: 1\)"):
        store.fetch_at_least(2, 3.0, sleep=sleep, clock=lambda: now[0])
    assert 3.0 <= now[0] < 3.1


def test_readers_beside_a_busy_publisher_only_ever_see_whole_versions(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path / "store"), keep=2)
    store.publish(0, pairs(0.0))
    failures: list[BaseException] = []
    done = threading.Event()

    def read(number: int) -> None:
        reader, newest = WeightStore(store.root, keep=2), 0
        try:
            while not done.is_set():
                fetched = reader.fetch_at_least(newest, 5.0, tmp_path / f"cache{number}")
                assert same(load(fetched), pairs(float(fetched.manifest.version)))
                assert fetched.manifest.version >= newest
                newest = fetched.manifest.version
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, 40):
        store.publish(version, pairs(float(version)))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_clients_import_neither_ray_nor_vllm_nor_torch_by_importing_the_store() -> None:
    program = "import sys, deployments.weights.store; assert not {'ray', 'vllm', 'torch', 'pyarrow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[4], check=False).returncode == 0
