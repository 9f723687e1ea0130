"""A training script of a user is found by its name, or the reason is told; the example of the page runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from training.commands import app, train
from training.commands.choosing import scripts

PAGE = Path(__file__).resolve().parents[5] / "docs" / "commands.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, whose modules are forgotten at the end. Nothing in it starts the built-in loop."""
    monkeypatch.setattr(train, "_train", lambda *_: pytest.fail("the built-in loop was started"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", "") and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_the_example_of_the_page_runs_in_place_of_the_loop(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```(?:python|yaml)\n# (my[\w.]+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, text in blocks:
        (here / name).write_text(text)
    (command,) = re.findall(r"^rayward (.*--script.*)$", PAGE.read_text(), re.MULTILINE)

    assert app.run(command.split()) == 0

    said = capsys.readouterr().out
    assert "5 steps of tiny in tictactoe" in said
    assert "1 x learner, 1 CPUs each" in said
    assert not (here / "runs").exists()


def test_a_dry_run_checks_the_script_and_does_not_call_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "dry_script.py").write_text("def train(config):\n    raise SystemExit('called')\n")
    arguments = ["train", "--env", "tictactoe", "--dry-run", "--script", "mine", "--set"]

    assert app.run([*arguments, "scripts.mine='dry_script:train'"]) == 0
    assert app.run([*arguments, "scripts.mine='dry_script:trian'"]) == 1
    assert "trian does not exist in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("made_here", "must look like package.module:function"),
        (":train", "must look like package.module:function"),
        ("no_such_module:train", "there is no module no_such_module, neither in"),
        ("no_such.module:train", "there is no module no_such.module, neither in"),
        ("made_here:missing", "missing does not exist in"),
        ("made_here:NUMBER", "NUMBER is no function in"),
    ],
)
def test_a_target_that_is_none_says_what_is_wrong(here: Path, target: str, problem: str) -> None:
    (here / "made_here.py").write_text("NUMBER = 3\n")
    with pytest.raises(ConfigError, match=rf"scripts\.mine is .*{re.escape(problem)}"):
        scripts.find(TrainConfig(scripts={"mine": target}), "mine")


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no script of that name\. Scripts: mine"):
        scripts.find(TrainConfig(scripts={"mine": "a:b"}), "theirs")
    with pytest.raises(ConfigError, match="none; add `scripts"):
        scripts.find(TrainConfig(), "theirs")


def test_a_library_that_the_script_lacks_keeps_its_own_error(here: Path) -> None:
    (here / "needs_more.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        scripts.find(TrainConfig(scripts={"mine": "needs_more:train"}), "mine")


def test_a_script_is_not_for_a_run_that_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", "--resume", "some-run", "--script", "mine"]) == 1
    assert "resumed with its own environment, model and loop" in capsys.readouterr().err
