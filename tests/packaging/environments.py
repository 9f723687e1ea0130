"""The wheel, and fresh environments that hold it. No network: libraries are borrowed from the running environment."""

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Loaded by a .pth line when the interpreter starts: every library outside the base dependencies is as if not installed.
BASE_ONLY = """
import re, sys
from importlib import metadata

def closure(requirements, found):
    from packaging.requirements import Requirement
    for requirement in map(Requirement, requirements):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found:
            found.add(name)
            try:
                closure(wanted_by(name, requirement.extras), found)
            except metadata.PackageNotFoundError:
                pass
    return found

def wanted_by(name, extras):
    from packaging.requirements import Requirement
    for line in metadata.requires(name) or []:
        marker = Requirement(line).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            yield line.partition(";")[0]

base = closure(wanted_by("rayward", []), {"rayward"})
blocked = {
    module
    for module, distributions in metadata.packages_distributions().items()
    if not any(re.sub(r"[-_.]+", "-", name).lower() in base for name in distributions)
} - set(sys.stdlib_module_names)
for name in [name for name in sys.modules if name.partition(".")[0] in blocked]:
    del sys.modules[name]

class OnlyBaseDependencies:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in blocked:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)

sys.meta_path.insert(0, OnlyBaseDependencies())
"""


@dataclass(frozen=True)
class Installation:
    """rayward's wheel in an environment of its own, used from a folder that is not the checkout."""

    folder: Path
    outside: Path

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment's bin folder ("python", "rayward")."""
        clean = {
            key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.outside,
            env=clean | {"NO_COLOR": "1", "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    checked(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return next(folder.glob("rayward-*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """With every library of the lock."""
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What `pip install rayward` gives: the base dependencies only."""
    installation = install(wheel, tmp_path_factory.mktemp("base"))
    (installation.site_packages / "base_only.py").write_text(BASE_ONLY)
    (installation.site_packages / "zz_base_only.pth").write_text("import base_only\n")
    return installation


def install(wheel: Path, folder: Path, *others: Path) -> Installation:
    """A fresh environment with rayward's wheel and those of other packages; libraries are borrowed."""
    environment = folder / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    outside = folder / "elsewhere"
    outside.mkdir()
    installation = Installation(environment, outside)
    # A path in a .pth adds the libraries but not the .pth files beside them: the editable rayward stays out.
    (installation.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "install")
    checked(
        *pip,
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        "--disable-pip-version-check",
        *map(str, (wheel, *others)),
    )
    return installation


def checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
