"""`pip install rayward` without extras: envs, configs, the client, and a console script that says what is missing."""

import pytest

from tests.packaging.environments import Installation

IMPORT_ALL = """
import importlib, pkgutil, configs, envs
for package in (configs, envs):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import deployments.protocol.generate, deployments.errors
for client in ("http", "act", "websocket", "grpc", "chunk_player", "minerl", "ros2"):
    importlib.import_module(f"deployments.client.{client}")
"""


def test_the_base_dependencies_suffice_for_envs_configs_and_the_client(base_install: Installation) -> None:
    done = base_install.run("python", "-c", IMPORT_ALL)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("library", ["ray", "torch", "vllm", "transformers", "pyarrow", "gymnasium"])
def test_a_library_of_an_extra_counts_as_not_installed(base_install: Installation, library: str) -> None:
    done = base_install.run("python", "-c", f"import {library}")

    assert f"No module named '{library}'" in done.stderr


def test_the_console_script_prints_its_help_without_extras(base_install: Installation) -> None:
    done = base_install.run("rayward", "--help")

    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_a_command_that_needs_an_extra_names_it_instead_of_a_traceback(base_install: Installation) -> None:
    config = next(base_install.site_packages.glob("configs/train/*.yaml"))

    done = base_install.run("rayward", "train", "--config", str(config))

    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "rayward[" in done.stdout + done.stderr


def test_an_environment_of_gymnasium_says_that_gymnasium_is_missing(base_install: Installation) -> None:
    done = base_install.run("rayward", "play", "--env", "gym:CartPole-v1")

    assert done.returncode == 1
    assert "gym:CartPole-v1 needs gymnasium" in done.stderr
    assert "rayward[train]" in done.stderr
    assert "Traceback" not in done.stderr
