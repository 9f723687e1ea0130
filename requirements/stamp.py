"""What .venv was made from, and whether that is still what is wanted. Standard library only."""

import hashlib
import json
import re
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "rayward-setup.json"


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
