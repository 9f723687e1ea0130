"""Weight versions behind any URI that pyarrow.fs knows (s3://, gs://, file://)."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from deployments.storage.owned import OwnedFolder, of_process
from deployments.weights.manifest import MANIFEST, WeightsCorrupt
from deployments.weights.places import LATEST, fill_cache


class UriFiles:
    """Any file system that pyarrow.fs knows by URI. Object stores cannot rename: the manifest is uploaded last."""

    poll_s = 0.5

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self.where = uri
        self._fs, self._path = fs.FileSystem.from_uri(uri)
        self._any = fs.FileSelector

    def stage(self) -> Path:
        self._staged = OwnedFolder("staged")
        return self._staged.path

    def commit(self, staged: Path, version: int) -> None:
        if version in self.versions():
            self.delete(version)
        self._fs.create_dir(f"{self._path}/{version}", recursive=True)
        names = [path.name for path in staged.iterdir() if path.name != MANIFEST]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda name: self._upload(staged / name, version), names):
                pass
        self._upload(staged / MANIFEST, version)

    def _upload(self, path: Path, version: int) -> None:
        with path.open("rb") as source, self._fs.open_output_stream(f"{self._path}/{version}/{path.name}") as target:
            shutil.copyfileobj(source, target, 8 * 1024 * 1024)

    def latest(self) -> int | None:
        try:
            with self._fs.open_input_stream(f"{self._path}/{LATEST}") as stream:
                return int(stream.read())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WeightsCorrupt(f"{self.where}/{LATEST} holds no number: write the newest version in it") from error

    def set_latest(self, version: int) -> None:
        if self._fs.type_name == "local":  # the one that is not replaced atomically by writing it
            with self._fs.open_output_stream(f"{self._path}/.{LATEST}") as stream:
                stream.write(str(version).encode())
            self._fs.move(f"{self._path}/.{LATEST}", f"{self._path}/{LATEST}")
            return
        with self._fs.open_output_stream(f"{self._path}/{LATEST}") as stream:
            stream.write(str(version).encode())

    def versions(self) -> list[int]:
        found = self._fs.get_file_info(self._any(self._path, allow_not_found=True, recursive=True))
        manifests = [info.path.split("/")[-2] for info in found if info.path.endswith(f"/{MANIFEST}")]
        return sorted(int(name) for name in manifests if name.isdigit())

    def local_folder(self, version: int, cache: Path | None) -> Path:
        cache = cache or of_process("weights").path / xxhash.xxh3_64_hexdigest(self.where.encode())
        with self._fs.open_input_stream(f"{self._path}/{version}/{MANIFEST}") as stream:
            manifest: bytes = stream.read()
        return fill_cache(cache, version, manifest, lambda into: self._download(version, into))

    def _download(self, version: int, into: Path) -> None:
        found = self._fs.get_file_info(self._any(f"{self._path}/{version}"))
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda info: self._download_file(info.path, into / info.base_name), found):
                pass

    def _download_file(self, source: str, target: Path) -> None:
        with self._fs.open_input_stream(source) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 8 * 1024 * 1024)

    def delete(self, version: int) -> None:
        self._fs.delete_file(f"{self._path}/{version}/{MANIFEST}")
        self._fs.delete_dir(f"{self._path}/{version}")

    def destroy(self) -> None:
        if self._fs.get_file_info(self._path).type.name != "NotFound":
            self._fs.delete_dir(self._path)
