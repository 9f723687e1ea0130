"""What a killed process leaves behind is taken back by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.policies import PolicyConfig
from deployments.storage import owned, runs
from deployments.storage.owned import OwnedFolder, Owner, take_back
from tests.unit.deployments.engines.in_memory import InMemoryEngine

ROOT = Path(__file__).resolve().parents[4]
MAKER = """
import sys
from pathlib import Path
from deployments.storage.owned import OwnedFolder
folder = OwnedFolder("weights", Path(sys.argv[1]))
(folder.path / "model.safetensors").write_text("bytes")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that owns a folder in `tmp_path` and waits for the end of its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_the_folder_of_a_killed_process_is_taken_back_by_the_next(
    maker: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = maker
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert folder.is_dir()

    mine = OwnedFolder("weights", tmp_path)

    assert list(tmp_path.iterdir()) == [mine.path]


def test_a_killed_process_that_its_parent_has_not_waited_for_is_dead(
    maker: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = maker
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one

    assert take_back([tmp_path]) == [folder]


def test_the_folder_of_a_living_process_stays_until_that_ends(
    maker: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = maker

    assert take_back([tmp_path]) == []
    assert (folder / "model.safetensors").is_file()
    process.communicate("")
    assert not folder.exists()


def test_a_number_that_another_process_has_now_is_not_its_owner(tmp_path: Path) -> None:
    me = Owner.current()
    folder = tmp_path / f"rayward-weights-{me.pid}-{me.start - 1}-{me.place}-x"
    folder.mkdir()

    assert take_back([tmp_path]) == [folder]


@pytest.mark.parametrize(
    "name",
    [
        "rayward-weights-1-1-00000000-x",  # another machine's or container's
        "rayward-weights-abc123",  # without an owner
        "rayward",
        "other-weights-1-1-00000000-x",
    ],
)
def test_what_nobody_here_can_judge_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()

    assert take_back([tmp_path]) == []
    assert (tmp_path / name).is_dir()


def test_what_belongs_to_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = Owner.current()
    folder = tmp_path / f"rayward-weights-{me.pid}-{me.start - 1}-{me.place}-x"
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)

    assert take_back([tmp_path]) == []


def test_a_forked_child_leaves_its_parents_folder_alone(tmp_path: Path) -> None:
    mine = OwnedFolder("weights", tmp_path)

    child = os.fork()
    if child == 0:
        mine.remove()
        os._exit(0)
    os.waitpid(child, 0)

    assert mine.path.is_dir()


def test_the_store_of_a_killed_run_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others may have left something in the real one
    program = (
        "import os, sys; from pathlib import Path; from configs.training import TrainConfig\n"
        "from deployments.storage import owned, runs; owned.SHARED_MEMORY = Path(sys.argv[1])\n"
        "root = runs.RunFolder(Path('my-run')).weights_root(TrainConfig())\n"
        "Path(root).mkdir(); print(root, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert str(left) == done.stdout.strip()
    assert left.name.endswith("-my-run")
    assert take_back() == [left]


def test_a_finished_run_removes_its_own_store_and_no_folder_that_was_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from configs.training import TrainConfig

    monkeypatch.setattr(owned, "SHARED_MEMORY", tmp_path)
    mine = Path(runs.RunFolder(Path("my-run")).weights_root(TrainConfig()))
    configured = tmp_path / "rayward-mine"
    for folder in (mine, configured):
        folder.mkdir()
        runs.remove_weights(str(folder))

    assert [path.name for path in tmp_path.iterdir()] == ["rayward-mine"]


async def test_a_replica_that_ends_removes_its_cache_before_it_waits_for_its_engine() -> None:
    """Serve kills a replica whose end takes too long: what it has not removed by then stays."""
    from deployments.replicas.hosted import HostedEngine

    seen: list[bool] = []

    class Engine(InMemoryEngine):
        async def close(self) -> None:
            seen.append(hosted._cache.path.exists())

    hosted = HostedEngine(Engine(), PolicyConfig(model="in memory"))
    assert hosted._cache.path.exists()

    await hosted.close()

    assert seen == [False]
