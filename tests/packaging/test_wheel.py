"""The wheel holds the four packages with their YAML files and nothing else, and works outside the checkout."""

import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

from tests.packaging.environments import ROOT, Installation

PACKAGES = ("configs", "envs", "deployments", "training")


def test_every_yaml_of_configs_is_in_the_wheel(wheel: Path) -> None:
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}

    assert written, "configs/ has no YAML"
    assert written <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    top_level = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {name for name in top_level if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_licence_and_the_entry_points_are_in_the_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()

    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "rayward = training.commands.app:main" in entry_points
    assert "[vllm.general_plugins]\nrayward = deployments.engines.vllm.plugin:register" in entry_points


def test_the_entry_point_for_vllm_can_be_loaded(installed: Installation) -> None:
    plugin = EntryPoint("rayward", "deployments.engines.vllm.plugin:register", "vllm.general_plugins")

    done = installed.run("python", "-c", f"import {plugin.module} as module; assert callable(module.{plugin.attr})")

    assert done.returncode == 0, done.stderr


def test_the_packages_come_from_the_wheel_outside_the_checkout(installed: Installation) -> None:
    program = (
        "import envs, configs, deployments.client.http as client\n"
        "print(envs.__file__, configs.__file__, client.__file__)"
    )

    done = installed.run("python", "-c", program)

    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(installed.site_packages) for path in done.stdout.split())


def test_the_console_script_lists_its_commands_outside_the_checkout(installed: Installation) -> None:
    done = installed.run("rayward", "--help")

    assert done.returncode == 0, done.stderr
    for command in ("train", "warmstart", "eval", "compare", "sweep", "serve", "play", "doctor"):
        assert command in done.stdout
