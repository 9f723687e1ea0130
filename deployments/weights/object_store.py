"""RayWeightStore: the WeightStore of a cluster without a shared disk, kept in Ray's object store.

A detached actor puts and holds each version's files, so that they outlive the learner; they are lost when the actor's
node is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ray

from deployments.storage.owned import OwnedFolder, memory_or_temporary, of_process
from deployments.weights.manifest import MANIFEST, WeightsMissing
from deployments.weights.places import fill_cache
from deployments.weights.store import WeightStore

NAMESPACE = "rayward"


CHUNK_BYTES = 256 * 1024 * 1024  # of a file; a reader writes one while the next is on its way


class RayWeightStore(WeightStore):
    """`name` is the store's name in the cluster. `fetch` brings a version to a local folder (`cache`, by default one
    of this process in the machine's shared memory or temporary folder)."""

    def __init__(self, name: str, keep: int = 4) -> None:
        super().__init__(f"ray:{name}", keep, files=RayFiles(name))


class Shelf:
    """Actor: version -> file name -> references of its chunks."""

    def __init__(self) -> None:
        self._versions: dict[int, dict[str, list[Any]]] = {}
        self._staged: dict[str, list[Any]] = {}
        self._latest: int | None = None

    def begin(self, names: list[str]) -> None:
        self._staged = {name: [] for name in names}

    def add(self, name: str, chunk: Any) -> None:
        """Puts the chunk again: Ray ties an object's life to the process that put it, and the learner may die."""
        self._staged[name].append(ray.put(chunk))

    def commit(self, version: int) -> None:
        self._versions[version], self._staged = self._staged, {}

    def get(self, version: int) -> dict[str, list[Any]] | None:
        return self._versions.get(version)

    def delete(self, version: int) -> None:
        self._versions.pop(version, None)

    def versions(self) -> list[int]:
        return sorted(self._versions)

    def set_latest(self, version: int) -> None:
        self._latest = version

    def latest(self) -> int | None:
        return self._latest


class RayFiles:
    """`weights.Files` over a Shelf. Waits for Ray at most `timeout_s` a call."""

    poll_s = 0.05

    def __init__(self, name: str, timeout_s: float = 300.0) -> None:
        self.where = f"Ray's object store ({name})"
        self._name = name
        self._timeout_s = timeout_s
        self._shelf: Any = (
            ray.remote(Shelf)
            .options(name=f"weights:{name}", namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0)
            .remote()
        )

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._shelf, method).remote(*arguments), timeout=self._timeout_s)

    def stage(self) -> Path:
        self._staged = OwnedFolder("staged", memory_or_temporary())
        return self._staged.path

    def commit(self, staged: Path, version: int) -> None:
        import numpy as np

        paths = sorted(staged.iterdir())
        self._call("begin", [path.name for path in paths])
        for path in paths:
            if path.stat().st_size == 0:
                continue
            data = np.memmap(path, np.uint8, "r")
            for start in range(0, len(data), CHUNK_BYTES):
                self._call("add", path.name, np.asarray(data[start : start + CHUNK_BYTES]))
        self._call("commit", version)

    def latest(self) -> int | None:
        version: int | None = self._call("latest")
        return version

    def set_latest(self, version: int) -> None:
        self._call("set_latest", version)

    def versions(self) -> list[int]:
        versions: list[int] = self._call("versions")
        return versions

    def local_folder(self, version: int, cache: Path | None) -> Path:
        files: dict[str, list[Any]] | None = self._call("get", version)
        if files is None:
            raise FileNotFoundError(2, "no such version", f"{self.where}/{version}")
        manifest = b"".join(bytes(self._chunk(reference)) for reference in files[MANIFEST])
        folder = cache or self._own_cache()
        return fill_cache(folder, version, manifest, lambda into: self._write(files, into))

    def _write(self, files: dict[str, list[Any]], into: Path) -> None:
        for name, references in files.items():
            with (into / name).open("wb") as file:
                for reference in references:
                    file.write(self._chunk(reference))

    def _chunk(self, reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=self._timeout_s)
        except (ray.exceptions.ObjectLostError, ray.exceptions.GetTimeoutError) as error:
            raise WeightsMissing(
                f"a file's bytes did not come out of {self.where} ({error!r}): the version was pruned or its node "
                "died; fetch the latest one"
            ) from error

    def delete(self, version: int) -> None:
        self._call("delete", version)

    def destroy(self) -> None:
        ray.kill(self._shelf)
        shutil.rmtree(self._own_cache(), ignore_errors=True)

    def _own_cache(self) -> Path:
        return of_process("weights", memory_or_temporary()).path / self._name
