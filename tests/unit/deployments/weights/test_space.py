"""A store that would not fit is refused before the first version is written."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from configs.base import UserError
from deployments.weights.manifest import NoRoom
from deployments.weights.space import GIB, check_room
from deployments.weights.store import WeightStore

Usage = namedtuple("Usage", "total used free")


def test_versions_that_do_not_fit_are_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(32 * GIB, 2 * GIB, 30 * GIB))

    check_room(str(tmp_path / "store"), 5 * GIB, keep=4, readers=2)  # just 30 GiB
    with pytest.raises(NoRoom, match=r"needs 35\.0 GiB .4 versions, 3 more.* has 30\.0 GiB free.*weights\.keep") as e:
        check_room(str(tmp_path / "store"), 5 * GIB, keep=4, readers=3)
    assert isinstance(e.value, UserError)


def test_the_free_space_is_that_of_the_disk_where_the_store_will_be(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoRoom):
        check_room(str(tmp_path / "not" / "yet" / "there"), free, keep=2, readers=0)
    check_room("s3://bucket/store", 10**18, keep=4, readers=1)


def test_a_disk_that_is_full_while_a_version_is_written_is_named_and_the_old_version_stays(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, [("a", torch.ones(3))])

    def full() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.ones(3)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoRoom, match=r"version 2 could not be written: .* is full.*version 1 stays the latest"):
        store.publish(2, full())
    assert store.latest() == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
