"""Stores: where finished blocks are kept; a folder that every worker sees, or an object store through fsspec.

A store is a small value that says a place and nothing secret: each process that uses it finds credentials and endpoint
in its own environment.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from geoseg.errors import GeosegError, InputError
from geoseg.raster.disk import check_writable, disk_error, disk_errors, make_folder, publish_bytes, remove
from geoseg.raster.record import RECORD

SHARED_LAG_S = 60.0  # NFS clients may take so long to see what another machine wrote (acdirmax)
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")


class Store(Protocol):
    """Named contents below one place; names have '/' between their parts.

    A content appears whole or not at all, and outlasts a crash once `publish` has returned. Stores are picklable;
    any thread of any process that sees the place may use them.
    """

    @property
    def lag_s(self) -> float:
        """How long another machine's contents may stay unseen, in seconds."""

    def inside(self, name: str) -> Store:
        """A store one folder deeper."""

    def begin(self, record: bytes, folders: Iterable[str]) -> None:
        """Empty the place, make it where missing, and put down whose contents will follow."""

    def record(self) -> bytes:
        """What `begin` put down; no bytes where it did not, or `remove` came after."""

    def publish(self, name: str, content: bytes) -> None:
        """Store a content; an OSError where the place has no record, so that stragglers of a removed run fail."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every content, by name."""

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small contents, whole."""

    def files(self, sizes: Mapping[str, int], folder: Path) -> dict[str, Path]:
        """Contents as files of this machine; where they are none, they are brought into `folder`."""

    def remove(self) -> None:
        """Delete everything: the record first, for without it nothing else counts."""

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Turn the place's refusals into a GeosegError that says how to go on."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder; on one machine, or on a file system that several share.

    Attributes:
        folder: its parent must exist.
        lag_s: see `Store`.
    """

    folder: Path
    lag_s: float = 0.0

    def inside(self, name: str) -> LocalStore:
        return replace(self, folder=self.folder / name)

    def begin(self, record: bytes, folders: Iterable[str]) -> None:
        self.remove()
        make_folder(self.folder)
        for name in folders:
            make_folder(self.folder / name)
        publish_bytes(self.folder / RECORD, record)

    def record(self) -> bytes:
        try:
            return (self.folder / RECORD).read_bytes()
        except FileNotFoundError:
            return b""

    def publish(self, name: str, content: bytes) -> None:
        path = self.folder / name
        make_folder(path.parent)  # the last folder only: the others are there since `begin`
        publish_bytes(path, content)

    def sizes(self) -> dict[str, int]:
        found = {}
        for path in self.folder.rglob("*.*"):
            if not path.name.startswith("."):
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return found

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in names}

    def files(self, sizes: Mapping[str, int], folder: Path) -> dict[str, Path]:
        return {name: self.folder / name for name in sizes}

    def remove(self) -> None:
        (self.folder / RECORD).unlink(missing_ok=True)
        remove(self.folder)

    def errors(self, doing: str) -> AbstractContextManager[None]:
        return disk_errors(doing, self.folder)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Objects below a URL that fsspec knows, such as `s3://bucket/prefix`.

    Attributes:
        url: without credentials.
        lag_s: see `Store`; what was written can be listed at once.
    """

    url: str
    lag_s: float = 0.0

    def inside(self, name: str) -> ObjectStore:
        return replace(self, url=f"{self.url}/{name}")

    def begin(self, record: bytes, folders: Iterable[str]) -> None:
        self.remove()
        system, root = self._open()
        system.pipe_file(f"{root}/{RECORD}", record)

    def record(self) -> bytes:
        system, root = self._open()
        try:
            return bytes(system.cat_file(f"{root}/{RECORD}"))
        except FileNotFoundError:
            return b""

    def publish(self, name: str, content: bytes) -> None:
        system, root = self._open()
        if not system.exists(f"{root}/{RECORD}"):
            raise FileNotFoundError(errno.ENOENT, "its record is gone", f"{self.url}/{RECORD}")
        system.pipe_file(f"{root}/{name}", content)

    def sizes(self) -> dict[str, int]:
        system, root = self._open()
        found: dict[str, dict[str, Any]] = system.find(root, detail=True)
        return {path.removeprefix(f"{root}/"): int(facts["size"]) for path, facts in found.items()}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        system, root = self._open()
        paths = {f"{root}/{name}": name for name in names}
        return {paths[path]: bytes(content) for path, content in system.cat(list(paths)).items()} if paths else {}

    def files(self, sizes: Mapping[str, int], folder: Path) -> dict[str, Path]:
        system, root = self._open()
        folder.mkdir(parents=True, exist_ok=True)
        if sum(sizes.values()) > shutil.disk_usage(folder).free:
            raise disk_error("fetching staged blocks", folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        local = {name: folder / name.replace("/", "-") for name in sizes}
        if local:
            system.get([f"{root}/{name}" for name in local], [str(path) for path in local.values()])
        for name, path in local.items():
            if path.stat().st_size != sizes[name]:
                raise OSError(errno.EIO, f"has {path.stat().st_size} bytes here, {sizes[name]} there", name)
        return local

    def remove(self) -> None:
        system, root = self._open()
        with suppress(FileNotFoundError):
            system.rm_file(f"{root}/{RECORD}")
        left = system.find(root)
        if left:
            system.rm(left)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            raise GeosegError(
                f"The store {self.url} failed while {doing}: {_reason(error)} Finished blocks are kept: "
                "run the same command again to go on."
            ) from error

    def check(self) -> None:
        """Write, list, read and delete a small object.

        Raises:
            InputError: one of them is not possible.
        """
        trial = self.inside(f"geoseg-{uuid.uuid4().hex}")
        try:
            trial.begin(b"geoseg", ())
            if trial.record() != b"geoseg" or trial.sizes() != {RECORD: 6}:
                raise OSError(errno.EIO, "what was written cannot be read")
            trial.remove()
        except _failures() as error:
            raise InputError(
                f"Blocks cannot be staged in {self.url}: {_reason(error)} Check the bucket, and credentials and "
                "endpoint in the environment (AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_ENDPOINT_URL)."
            ) from error

    def _open(self) -> tuple[Any, str]:
        """The file system, one for each process, and the path in it."""
        from fsspec.core import url_to_fs

        system, root = url_to_fs(self.url, use_listings_cache=False)
        return system, root.rstrip("/")


def store_at(place: str) -> Store:
    """The store that a place names, as `check_place` gives it."""
    return ObjectStore(place) if _URL.match(place) else LocalStore(Path(place), SHARED_LAG_S)


def check_place(given: str | os.PathLike[str]) -> str:
    """What was given as a store, in the form that every process understands.

    Args:
        given: an existing folder, or a URL that fsspec knows.

    Raises:
        InputError: blocks cannot be kept there; with the reason and the remedy.
    """
    text = os.fspath(given)
    if text.lower().startswith("file://"):
        text = text[len("file://") :]
    if not _URL.match(text):
        return str(_check_folder(Path(text).expanduser().absolute()))
    url = text.rstrip("/")
    _check_url(url)
    ObjectStore(url).check()
    return url


def _check_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"The staging folder {folder} does not exist; create it first (mkdir -p {folder}).")
    check_writable(folder, "staging folder")
    return folder


def _check_url(url: str) -> None:
    protocol, _, rest = url.partition("://")
    if re.match(r"[^/]*:[^/]*@", rest):
        raise InputError(
            f"The staging place {protocol}://... has a password in it; give the URL without, and the credentials in "
            "the environment."
        )
    if not rest.strip("/") or set("*?[]#") & set(rest):
        raise InputError(f"The staging place {url} is none; give a bucket and a prefix, such as s3://bucket/prefix.")
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
        needed = package.get(protocol)
        command = "pip install 'geoseg[s3]'" if needed == "s3fs" else f"pip install {needed}" if needed else str(error)
        raise InputError(f"Staging in {url} needs a package that is not installed: {command}.") from error
    except ValueError as error:
        raise InputError(
            f"The staging place {url} begins with {protocol}://, which fsspec does not know; give a folder or "
            "s3://bucket/prefix."
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What file systems of fsspec raise; botocore's and aiohttp's own errors are no OSErrors."""
    failures: list[type[Exception]] = [OSError, ImportError]
    with suppress(ImportError):
        from botocore.exceptions import BotoCoreError, ClientError

        failures += [BotoCoreError, ClientError]
    with suppress(ImportError):
        from aiohttp import ClientError as HttpError

        failures.append(HttpError)
    return tuple(failures)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.strerror:
        names = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{names}."
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!")) else f"{text}."
