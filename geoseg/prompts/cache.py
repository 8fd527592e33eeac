"""Embeddings of chips, kept in memory and on disk: computed once per chip, scene and model."""

from __future__ import annotations

import os
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from geoseg.prompts.chips import ChipAt
from geoseg.prompts.networks import Embedded
from geoseg.raster.disk import cache_folder, disk_errors

FOLDER = "prompts"
DEFAULT_GB = 2.0
IN_MEMORY = 4  # chips; a click after another is most often on the same


class EmbeddingCache:
    """Embeddings of the chips of one scene, by one model.

    Args:
        digest: of the scene, the model and how the scene is read; another one has other files. None: nothing tells the
            scene from others, and none are kept on disk.
        limit_gb: what all scenes and models together may take on disk; the longest unused go first. 0 keeps none there.
    """

    def __init__(self, digest: str | None, limit_gb: float = DEFAULT_GB) -> None:
        self._folder = None if digest is None else cache_folder() / FOLDER / digest[:32]
        self._limit = int(limit_gb * 1e9)
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
                with disk_errors("keeping an embedding", file.parent.parent):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    self._make_room(file.parent.parent, len(content))
                    _write(file, content)
        return embedded

    def _make_room(self, folder: Path, needed: int) -> None:
        files = [(file, file.stat()) for file in folder.glob("*/*.safetensors")]
        total = needed + sum(state.st_size for _, state in files)
        for file, state in sorted(files, key=lambda known: known[1].st_mtime_ns):
            if total <= self._limit:
                return
            file.unlink(missing_ok=True)
            total -= state.st_size


def _load(file: Path) -> Embedded | None:
    """None where it is not there, or was damaged."""
    try:
        found: Embedded = load(file.read_bytes())
        os.utime(file)
    except (OSError, SafetensorError):
        return None
    return found


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all; not synced, as what a power cut damages is computed again."""
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
