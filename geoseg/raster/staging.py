"""Staging: finished blocks that survive a crash, in a folder beside the output or in a store that workers share."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoseg.errors import GeosegError, InputError
from geoseg.raster.blocks import (
    MARKERS,
    Block,
    BlockLayout,
    BlockWriter,
    Marker,
    Note,
    block_name,
    layer_folder,
    marked_block,
)
from geoseg.raster.disk import disk_errors, locked_folder, partial_folder, publish_bytes, remove
from geoseg.raster.record import RECORD, RunRecord, canonical_json, differences, digest_of, read_record
from geoseg.raster.stores import LocalStore, Store, check_place, store_at

__all__ = ["BlockLayout", "BlockWriter", "Staging", "canonical_json", "digest_of", "discard_leftovers"]

_log = logging.getLogger(__name__)


class Staging:
    """The unfinished output of one run: its record, its lock and its finished blocks.

    Attributes:
        output: the file that the blocks are for.
        folder: `<output>.geoseg-partial`, beside it: lock, record and the COG while it is written.
        record: what `run.json` says.
        layout: the blocks and layers of this run.
        store: where its blocks are; by default within the folder.
    """

    def __init__(self, output: Path, record: RunRecord, layout: BlockLayout) -> None:
        self.output = output
        self.folder = partial_folder(output)
        self.record = record
        self.layout = layout
        self.store = _store_of(output, record)
        self._known: dict[str, tuple[int, Marker]] = {}

    @classmethod
    @contextmanager
    def open(
        cls,
        output: Path,
        parts: Mapping[str, Any],
        layout: BlockLayout,
        *,
        machine: str = "",
        overwrite: bool = False,
        store: str | os.PathLike[str] | None = None,
    ) -> Iterator[Staging]:
        """Go on with the staged blocks of this run, or begin.

        Args:
            output: the file that the blocks are for; its folder must exist.
            parts: everything that the pixels depend on, nested and JSON-able: model, scene, options, versions.
            layout: the blocks and layers of this run.
            machine: kind of machine that computes the blocks.
            overwrite: staged blocks of another run are thrown away.
            store: folder or URL (`s3://bucket/prefix`) where the blocks are kept, under a name made of the output's
                name and the run: the same run finds them from any machine. None keeps them beside the output. The
                lock is beside the output always; one run must not be started on two machines at once.

        Raises:
            InputError: the folder holds another run, another process is writing this output, or the store cannot be
                used.
        """
        place = None if store is None else check_place(store)
        parts_now = json.loads(canonical_json(parts))
        record = RunRecord(
            digest=digest_of(parts), parts=parts_now, layout=layout.to_dict(), machine=machine, store=place
        )
        staging = cls(output, record, layout)
        with locked_folder(staging.folder):
            staging._begin(overwrite)
            try:
                yield staging
            finally:
                with suppress(GeosegError):  # a store that fails keeps what it has
                    if not staging.done():
                        staging.discard()

    @property
    def digest(self) -> str:
        """sha256 of the parts: equal for runs whose pixels are equal, however they are cut in blocks."""
        return self.record.digest

    def writer(self) -> BlockWriter:
        return BlockWriter(self.store, self.layout)

    def done(self) -> set[Block]:
        """The finished blocks: marked, and every file as long as its marker says."""
        return set(self._markers())

    def notes(self) -> dict[Block, Note]:
        """The notes of finished blocks, in row-major order."""
        return {block: marker.note for block, marker in self._markers().items() if marker.note is not None}

    def files(self, layer: str, folder: Path) -> dict[Block, Path]:
        """The files of the finished blocks that have pixels in this layer, in row-major order.

        Args:
            layer: name of the layer.
            folder: where blocks that are not on this machine are brought to.
        """
        sizes = {block: marker.sizes[layer] for block, marker in self._markers().items() if layer in marker.sizes}
        with self.store.errors(f"fetching the blocks of {layer}"):
            files = self.store.files({block_name(layer, block): size for block, size in sizes.items()}, folder)
        return {block: files[block_name(layer, block)] for block in sizes}

    def contents(self, layer: str) -> Iterator[tuple[Block, bytes]]:
        """The finished blocks that have this layer, one after the other, in row-major order."""
        for block, marker in self._markers().items():
            if layer in marker.sizes:
                name = block_name(layer, block)
                with self.store.errors(f"fetching the block at {self.layout.window(block)}"):
                    content = self.store.read([name])[name]
                yield block, content

    def check_complete(self) -> None:
        """Raise a GeosegError that names a missing block, if one is missing."""
        patient_until = time.monotonic() + self.store.lag_s
        while missing := sorted(set(self.layout.blocks) - self.done()):
            if time.monotonic() >= patient_until:
                raise GeosegError(
                    f"{len(missing)} blocks of {self.output} are not finished, the first at "
                    f"{self.layout.window(missing[0])}; run the same command again."
                )
            time.sleep(0.5)

    @contextmanager
    def work_folder(self, path: Path) -> Iterator[Path]:
        """An empty folder on the file system of `path`, for writing it; it goes at the end, or at the next try."""
        folder = partial_folder(path)
        if folder.resolve() == self.folder.resolve():
            with _emptied(folder / "cog"):
                yield folder / "cog"
        else:
            with locked_folder(folder), _emptied(folder / "cog"):
                yield folder / "cog"

    def discard(self) -> None:
        """Forget the run and delete its blocks; where a store fails, say so and leave them to the next try."""
        try:
            _discard(self.output, self.record)
        except GeosegError as error:
            _log.warning("The staged blocks could not be deleted: %s", error)

    def _begin(self, overwrite: bool) -> None:
        with disk_errors("opening the staging folder", self.output.parent):
            staged = self._staged(overwrite)
            if staged is None or (staged.key, staged.store) != (self.record.key, self.record.store):
                if staged is not None and not overwrite:
                    raise InputError(
                        f"{self.folder} is of another run with finished blocks: {differences(staged, self.record)}. "
                        "Give the same model, scene and options to go on with it, or --overwrite (or delete that "
                        "folder) to start anew."
                    )
                _discard(self.output, staged)
            publish_bytes(self.folder / RECORD, self.record.to_json())
        with self.store.errors("opening the staging place"):
            if not _is_of(self.store.record(), self.record):
                folders = [MARKERS, *map(layer_folder, self.layout.layers)]
                self.store.begin(self.record.to_json(), folders)

    def _staged(self, overwrite: bool) -> RunRecord | None:
        try:
            return read_record(self.folder)
        except ValueError:
            if overwrite:
                return None
            raise InputError(
                f"{self.folder / RECORD} cannot be read, so the blocks beside it cannot be trusted; "
                "give --overwrite or delete the folder to start anew."
            ) from None

    def _markers(self) -> dict[Block, Marker]:
        """The markers of finished blocks, in row-major order; each is read once."""
        with self.store.errors("looking for finished blocks"):
            sizes = self.store.sizes()
            marks = {name: block for name in sizes if (block := marked_block(name)) is not None}
            unread = [name for name in marks if self._known.get(name, (-1,))[0] != sizes[name]]
            for name, content in self.store.read(unread).items():
                self._known.pop(name, None)
                with suppress(ValidationError):
                    self._known[name] = len(content), Marker.model_validate_json(content)
        found = {block: self._known[name][1] for name, block in marks.items() if name in self._known}
        return {block: marker for block, marker in sorted(found.items()) if _is_whole(block, marker, sizes)}


def discard_leftovers(output: Path, digest: str) -> None:
    """Delete the staged blocks of a run that was killed after its outputs were all in place."""
    folder = partial_folder(output)
    if not folder.is_dir():
        return
    try:
        with suppress(ValueError), locked_folder(folder):  # in use, or unreadable: not ours to delete
            record = read_record(folder)
            if record is None or record.digest == digest:
                _discard(output, record)
    except GeosegError as error:
        _log.warning("The staged blocks could not be deleted: %s", error)


def _store_of(output: Path, record: RunRecord) -> Store:
    """The place of one run's blocks; another run has another, so that its stragglers cannot write among these."""
    if record.store is None:
        return LocalStore(partial_folder(output) / f"blocks-{record.key}")
    bound = digest_of({"run": record.key, "output": output.name})[:16]
    return store_at(record.store).inside(f"{re.sub(r'[^A-Za-z0-9._-]', '_', output.name)}-{bound}")


def _is_of(content: bytes, record: RunRecord) -> bool:
    try:
        found = RunRecord.model_validate_json(content)
    except ValidationError:
        return False
    return found.key == record.key


def _is_whole(block: Block, marker: Marker, sizes: Mapping[str, int]) -> bool:
    return all(sizes.get(block_name(layer, block)) == size for layer, size in marker.sizes.items())


def _discard(output: Path, record: RunRecord | None) -> None:
    """A store elsewhere first: the record here is the only one to know of it. Here the record, then the rest."""
    if record is not None and record.store is not None:
        store = _store_of(output, record)
        with store.errors(f"deleting the blocks of {output}"):
            store.remove()
    for pattern in (RECORD, "cog", ".*.tmp", "blocks-*"):
        for path in partial_folder(output).glob(pattern):
            remove(path)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    remove(folder)
    folder.mkdir()
    try:
        yield
    finally:
        remove(folder)
