"""What README and docs/ say is true: the example runs, links lead somewhere, commands and configurations exist."""

import random
import re
from pathlib import Path

import pytest
import yaml

from envs import registry
from envs.base import Env

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def test_the_environment_of_the_readme_can_be_won_and_read() -> None:
    (example,) = (block for block in python_blocks(ROOT / "README.md") if "class Guess" in block)
    names: dict[str, type[Env]] = {}
    exec(example, names)
    game = names["Guess"]()

    game.reset(3)
    won = game.step(game.expert_action(random.Random(0)))
    assert won.terminated
    assert won.success
    assert won.reward == 1.0

    game.reset(3)
    misread = game.step("I do not know")
    assert not misread.success
    assert misread.info["parse_ok"] is False

    body = example[example.index("class Guess") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20, "the README promises 20 lines"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_our_pages_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", prose(page))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_configurations_that_are_named_exist(page: Path) -> None:
    from training.commands.app import app

    text = page.read_text()
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {group.name for group in app.registered_groups if group.name}
    named = set(re.findall(r"(?:`|^|/)rayward ([a-z]+)", text, re.MULTILINE))
    assert named <= commands
    configurations = re.findall(r"configs/(?:train|serve|sweep)/[a-z0-9_]+\.yaml", text)
    assert not [name for name in configurations if not (ROOT / name).exists() and "NAME" not in name]
    modules = re.findall(r"python -m (training|benchmarks)\.([a-z_]+)", text)
    assert not [f"{package}.{name}" for package, name in modules if not (ROOT / package / f"{name}.py").exists()]


def test_the_gymnasium_environment_of_the_page_can_be_played() -> None:
    from configs.training import TrainConfig

    (example,) = re.findall(
        r"```yaml\n(env:\n  name: gym:.*?)```", (ROOT / "docs/environments.md").read_text(), re.DOTALL
    )
    env = TrainConfig.parse(yaml.safe_load(example)).env
    game = registry.make(env.name, **env.kwargs)

    assert game.spec.horizon <= env.max_turns
    shown = game.reset(0).text
    assert f"`{shown}`" in (ROOT / "docs/environments.md").read_text()
    result, rng = game.step(game.expert_action(random.Random(0))), random.Random(0)
    while not (result.terminated or result.truncated):
        result = game.step(game.expert_action(rng))
    assert result.success


def test_the_clients_of_the_serving_page_name_policies_of_the_quickstart() -> None:
    from configs.serving import ServeConfig

    quickstart = ServeConfig.load(str(ROOT / "configs/serve/quickstart.yaml"), [])
    named = re.findall(r'(?:policy|model)="(\w+)"', "".join(python_blocks(ROOT / "docs/serving.md")))

    assert set(named) == {policy.name for policy in quickstart.policies}
