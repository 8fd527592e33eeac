"""Staging: finished blocks that survive a crash, in a folder beside the output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoseg.errors import GeosegError, InputError
from geoseg.raster.blocks import Block, BlockLayout, BlockWriter, Marker, Note, block_file
from geoseg.raster.disk import disk_errors, locked_folder, make_folder, partial_folder, publish_bytes, remove
from geoseg.raster.record import RunRecord, canonical_json, differences, digest_of, read_record

__all__ = ["BlockLayout", "BlockWriter", "Staging", "canonical_json", "digest_of", "discard_leftovers"]


class Staging:
    """The unfinished output of one run: its record, its lock and its finished blocks.

    Attributes:
        output: the file that the blocks are for.
        folder: `<output>.geoseg-partial`, beside it.
        record: what `run.json` says.
        layout: the blocks and layers of this run.
    """

    def __init__(self, output: Path, record: RunRecord, layout: BlockLayout) -> None:
        self.output = output
        self.folder = partial_folder(output)
        self.record = record
        self.layout = layout

    @classmethod
    @contextmanager
    def open(
        cls, output: Path, parts: Mapping[str, Any], layout: BlockLayout, *, overwrite: bool = False
    ) -> Iterator[Staging]:
        """Go on with the staged blocks of this run, or begin.

        Args:
            output: the file that the blocks are for; its folder must exist.
            parts: everything that the pixels depend on, nested and JSON-able: model, scene, options, versions.
            layout: the blocks and layers of this run.
            overwrite: staged blocks of another run are thrown away.

        Raises:
            InputError: the folder holds another run, or another process is writing this output.
        """
        record = RunRecord(digest=digest_of(parts), parts=json.loads(canonical_json(parts)), layout=layout.to_dict())
        staging = cls(output, record, layout)
        with locked_folder(staging.folder):
            with disk_errors("opening the staging folder", output.parent):
                staging._begin(overwrite)
            try:
                yield staging
            finally:
                if not any(staging._blocks.glob("done/*/*.json")):
                    staging.discard()

    @property
    def digest(self) -> str:
        """sha256 of the parts: equal for runs whose pixels are equal, however they are cut in blocks."""
        return self.record.digest

    def writer(self) -> BlockWriter:
        return BlockWriter(self._blocks, self.layout)

    def done(self) -> set[Block]:
        """The finished blocks: marked, and every file as long as its marker says."""
        return set(self._markers())

    def notes(self) -> dict[Block, Note]:
        """The notes of finished blocks, in row-major order."""
        return {block: marker.note for block, marker in sorted(self._markers().items()) if marker.note is not None}

    def files(self, layer: str) -> dict[Block, Path]:
        """The files of the finished blocks that have pixels in this layer, in row-major order."""
        markers = sorted(self._markers().items())
        return {block: block_file(self._blocks, layer, block) for block, m in markers if layer in m.sizes}

    def check_complete(self) -> None:
        """Raise a GeosegError that names a missing block, if one is missing."""
        missing = sorted(set(self.layout.blocks) - self.done())
        if missing:
            raise GeosegError(
                f"{len(missing)} blocks of {self.output} are not finished, the first at "
                f"{self.layout.window(missing[0])}; run the same command again."
            )

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
        """Forget the run and delete its blocks."""
        _discard(self.folder)

    @property
    def _blocks(self) -> Path:
        # Named by the run, so that a straggler of another one cannot write among these.
        return self.folder / f"blocks-{self.record.key}"

    def _begin(self, overwrite: bool) -> None:
        staged = self._staged(overwrite)
        if staged is None or staged.key != self.record.key:
            if staged is not None and not overwrite:
                raise InputError(
                    f"{self.folder} holds finished blocks of another run: {differences(staged, self.record)}. Give the "
                    "same model, scene and options to go on with it, or --overwrite (or delete that folder) to start "
                    "anew."
                )
            self.discard()
        publish_bytes(self.folder / "run.json", json.dumps(self.record.model_dump(), indent=1).encode())
        for folder in (self._blocks, *(self._blocks / name for name in ("done", *self.layout.layers))):
            make_folder(folder)

    def _staged(self, overwrite: bool) -> RunRecord | None:
        try:
            return read_record(self.folder)
        except ValueError:
            if overwrite:
                return None
            raise InputError(
                f"{self.folder / 'run.json'} cannot be read, so the blocks beside it cannot be trusted; "
                "give --overwrite or delete the folder to start anew."
            ) from None

    def _markers(self) -> dict[Block, Marker]:
        found = {}
        for path in self._blocks.glob("done/*/*.json"):
            block = int(path.parent.name), int(path.stem)
            try:
                marker = Marker.model_validate_json(path.read_bytes())
            except ValidationError:
                continue
            if all(_size(block_file(self._blocks, name, block)) == size for name, size in marker.sizes.items()):
                found[block] = marker
        return found


def discard_leftovers(output: Path, digest: str) -> None:
    """Delete the staged blocks of a run that was killed after its outputs were all in place."""
    folder = partial_folder(output)
    if not folder.is_dir():
        return
    with suppress(ValueError), locked_folder(folder):  # in use, or unreadable: not ours to delete
        record = read_record(folder)
        if record is None or record.digest == digest:
            _discard(folder)


def _discard(folder: Path) -> None:
    """Record first: without it, nothing else counts."""
    for pattern in ("run.json", "cog", ".*.tmp", "blocks-*"):
        for path in folder.glob(pattern):
            remove(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    remove(folder)
    folder.mkdir()
    try:
        yield
    finally:
        remove(folder)
