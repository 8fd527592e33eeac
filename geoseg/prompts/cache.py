"""Embeddings of chips, kept in memory and on disk: computed once per chip, scene and model."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from geoseg.prompts.chips import ChipAt
from geoseg.prompts.networks import Embedded
from geoseg.raster.disk import cache_folder

log = logging.getLogger(__name__)
FOLDER = "prompts"
DEFAULT_GB = 2.0
IN_MEMORY = 4  # chips; a click after another is most often on the same
SHARE = 8  # what is on disk is listed once for each such part of the limit that is written
OLD_S = 86_400  # age at which a file that was never finished is of a killed run


class EmbeddingCache:
    """Embeddings of the chips of one scene, by one model.

    Args:
        digest: of the scene, the model and how the scene is read; another one has other files. None: nothing tells the
            scene from others, and none are kept on disk.
        limit_gb: what all scenes and models together may take on disk; the longest unused go first. 0 keeps none there.
            A run beside this one may add an eighth of it for a while.

    What cannot be written is done without, and told once.
    """

    def __init__(self, digest: str | None, limit_gb: float = DEFAULT_GB) -> None:
        self._folder = None if digest is None else cache_folder() / FOLDER / digest[:32]
        self._limit = int(limit_gb * 1e9)
        self._room = 0  # bytes to write before what is on disk is listed again
        self._near: OrderedDict[ChipAt, Embedded] = OrderedDict()

    def get(self, at: ChipAt, compute: Callable[[], Embedded]) -> Embedded:
        """From memory, from disk, or computed now."""
        if at not in self._near:
            self._near[at] = self._found(at, compute)
            if len(self._near) > IN_MEMORY:
                self._near.popitem(last=False)
        self._near.move_to_end(at)
        return self._near[at]

    def _found(self, at: ChipAt, compute: Callable[[], Embedded]) -> Embedded:
        if self._folder is None:
            return compute()
        file = self._folder / f"{at.level}-{at.row}-{at.col}.safetensors"
        return _load(file) or self._computed(file, compute)

    def _computed(self, file: Path, compute: Callable[[], Embedded]) -> Embedded:
        embedded = compute()
        if self._limit > 0:
            content = save({name: np.ascontiguousarray(part) for name, part in embedded.items()})
            if len(content) <= self._limit:
                self._keep(file, content)
        return embedded

    def _keep(self, file: Path, content: bytes) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if len(content) > self._room:
                self._make_room(file.parent.parent, len(content))
            _write(file, content)
            self._room -= len(content)
        except OSError as error:
            self._limit = 0
            told = "Embeddings are not kept, as %s cannot be written (%s); set GEOSEG_CACHE to a folder that can."
            log.warning(told, file.parent.parent, error.strerror or error)

    def _make_room(self, folder: Path, needed: int) -> None:
        """Where it gets too much, the longest unused go, and more than must: so that this is seldom done."""
        files = sorted(_listed(folder.glob("*/*.safetensors")))
        total = needed + sum(file.size for file in files)
        allowed = self._limit if total <= self._limit else self._limit - self._limit // SHARE
        for file in files:
            if total <= allowed:
                break
            file.path.unlink(missing_ok=True)
            total -= file.size
        self._room = needed + min(self._limit - total, self._limit // SHARE)
        for file in _listed(folder.glob("*/.*.tmp")):
            if file.used_ns < time.time_ns() - OLD_S * 10**9:
                file.path.unlink(missing_ok=True)


class _Listed(NamedTuple):
    """A file: when it was last used, its bytes, and where it is."""

    used_ns: int
    size: int
    path: Path


def _listed(files: Iterable[Path]) -> list[_Listed]:
    """Those that are still there, as other runs delete too."""
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            state = file.stat()
            found.append(_Listed(state.st_mtime_ns, state.st_size, file))
    return found


def _load(file: Path) -> Embedded | None:
    """None where it is not there, or was damaged."""
    try:
        found: Embedded = load(file.read_bytes())
    except (OSError, SafetensorError):
        return None
    with suppress(OSError):  # of another user, or just gone
        os.utime(file)
    return found


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all; not synced, as what a power cut damages is computed again."""
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
