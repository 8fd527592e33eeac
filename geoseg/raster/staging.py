"""Staging: finished blocks that survive a crash, in a folder beside the output."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from pydantic import BaseModel, ConfigDict, ValidationError
from rasterio.io import MemoryFile

from geoseg.errors import GeosegError, InputError
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.raster.disk import (
    disk_errors,
    locked_folder,
    make_folder,
    partial_folder,
    publish_bytes,
    remove,
)

logger = logging.getLogger(__name__)

Block: TypeAlias = tuple[int, int]
Note: TypeAlias = Mapping[str, Any]
TILE = 512
_PIXELS = Affine.scale(2, -2)  # any but the identity, of which rasterio would warn; the mosaic does not use it
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How a scene is cut in blocks, and what each block holds.

    Attributes:
        shape: rows and columns of the scene.
        block: rows and columns of a block; those at the far edges are clipped.
        layers: band count by layer name.
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    layers: Mapping[str, int]

    def __post_init__(self) -> None:
        if min(*self.shape, *self.block) < 1:
            raise InputError(f"Scene and block are 1 px or more, not {self.shape} and {self.block}.")

    @property
    def count(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.shape[0] // self.block[0]), -(-self.shape[1] // self.block[1])

    @property
    def blocks(self) -> Iterator[Block]:
        """Row-major indices of all blocks."""
        rows, cols = self.count
        return ((i, j) for i in range(rows) for j in range(cols))

    def window(self, block: Block) -> Window:
        height, width = self.block
        return Window(block[0] * height, block[1] * width, height, width).clipped(self.shape)

    def to_dict(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "block": list(self.block), "layers": dict(self.layers)}


class RunRecord(BaseModel):
    """`run.json`: what the staged blocks are bound to, in parts that can be read and compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    digest: str
    parts: dict[str, Any]
    layout: dict[str, Any]

    @property
    def key(self) -> str:
        """Digest of the run and of how it is cut; names the folder of its blocks."""
        return digest_of({"digest": self.digest, "layout": self.layout})[:16]


class _Marker(BaseModel):
    """What one finished block consists of; the last file of a block to be published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: dict[str, int]
    note: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BlockWriter:
    """Stores finished blocks; can be pickled and used from any thread or process that sees the folder.

    Attributes:
        folder: the folder of this run's blocks; it must exist, so that a straggler of a discarded run fails.
        layout: the blocks and layers expected.
    """

    folder: Path
    layout: BlockLayout

    def write(self, block: Block, layers: Mapping[str, npt.NDArray[np.uint8]], note: Note | None = None) -> None:
        """Publish one block: all its layers, then the marker that makes it count.

        Args:
            block: row and column of the block.
            layers: (bands, height, width) or (height, width) pixels of every layer of the layout; an empty mapping
                where nothing in the block was measured.
            note: small JSON values to keep with the block.

        Raises:
            GeosegError: the block could not be written; those finished before are kept.
        """
        encoded = {name: content for name, content in self._encoded(block, layers) if content}
        note = json.loads(canonical_json(note)) if note else None
        marker = _Marker(sizes={name: len(content) for name, content in encoded.items()}, note=note)
        with disk_errors(f"staging the block at {self.layout.window(block)}", self.folder):
            for name, content in encoded.items():
                self._publish(block_file(self.folder, name, block), content)
            self._publish(_marker_file(self.folder, block), marker.model_dump_json().encode())

    def _encoded(self, block: Block, layers: Mapping[str, npt.NDArray[np.uint8]]) -> Iterator[tuple[str, bytes]]:
        if layers and set(layers) != set(self.layout.layers):
            raise ValueError(f"block {block} has layers {sorted(layers)}, not {sorted(self.layout.layers)}")
        for name, pixels in layers.items():
            pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
            expected = (self.layout.layers[name], *self.layout.window(block).shape)
            if pixels.shape != expected or pixels.dtype != np.uint8:
                raise ValueError(f"{name} of block {block} is {pixels.dtype} {pixels.shape}, not uint8 {expected}")
            yield name, _encode_block(pixels)

    @staticmethod
    def _publish(path: Path, content: bytes) -> None:
        make_folder(path.parent)
        publish_bytes(path, content)


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
        if folder == self.folder:
            with _emptied(folder / "cog"):
                yield folder / "cog"
        else:
            with locked_folder(folder), _emptied(folder / "cog"):
                yield folder / "cog"

    def discard(self) -> None:
        """Forget the run and delete its blocks."""
        for name in ("run.json", "cog"):
            remove(self.folder / name)
        for blocks in self.folder.glob("blocks-*"):
            remove(blocks)

    @property
    def _blocks(self) -> Path:
        # Named by the run, so that a straggler of another one cannot write among these.
        return self.folder / f"blocks-{self.record.key}"

    def _begin(self, overwrite: bool) -> None:
        staged = self._staged(overwrite)
        if staged is None or staged.key != self.record.key:
            if staged is not None and not overwrite:
                raise InputError(_another_run(self.folder, staged, self.record))
            self.discard()
        publish_bytes(self.folder / "run.json", json.dumps(self.record.model_dump(), indent=1).encode())
        for folder in (self._blocks, *(self._blocks / name for name in ("done", *self.layout.layers))):
            make_folder(folder)

    def _staged(self, overwrite: bool) -> RunRecord | None:
        try:
            return RunRecord.model_validate(json.loads((self.folder / "run.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError):
            if overwrite:
                return None
            raise InputError(
                f"{self.folder / 'run.json'} cannot be read, so the blocks beside it cannot be trusted; "
                "give --overwrite or delete the folder to start anew."
            ) from None

    def _markers(self) -> dict[Block, _Marker]:
        found = {}
        for path in self._blocks.glob("done/*/*.json"):
            block = int(path.parent.name), int(path.stem)
            try:
                marker = _Marker.model_validate_json(path.read_bytes())
            except ValidationError:
                continue
            if all(_size(block_file(self._blocks, name, block)) == size for name, size in marker.sizes.items()):
                found[block] = marker
        return found


def block_file(folder: Path, layer: str, block: Block) -> Path:
    """Where one layer of one block is staged."""
    return folder / layer / str(block[0]) / f"{block[1]}.tif"


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest_of(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _marker_file(folder: Path, block: Block) -> Path:
    return folder / "done" / str(block[0]) / f"{block[1]}.json"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _encode_block(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The pixels as a small tiled GeoTIFF; no bytes where all are nodata.

    It is made in memory: GDAL does not report every failed write, Python does.
    """
    if (pixels == NODATA).all():
        return b""
    bands, height, width = pixels.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype="uint8",
            count=bands,
            height=height,
            width=width,
            nodata=NODATA,
            tiled=True,
            blockxsize=TILE,
            blockysize=TILE,
            compress="deflate",
            zlevel=1,
            interleave="band",
            transform=_PIXELS,
        ) as raster:
            raster.write(pixels)
        return bytes(memory.read())


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    remove(folder)
    folder.mkdir()
    try:
        yield
    finally:
        remove(folder)


def _another_run(folder: Path, staged: RunRecord, asked: RunRecord) -> str:
    before = {**_leaves(staged.parts), **_leaves({"blocks": staged.layout})}
    now = {**_leaves(asked.parts), **_leaves({"blocks": asked.layout})}
    differences = [
        f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}"
        for name in dict.fromkeys((*now, *before))
        if before.get(name) != now.get(name)
    ]
    if len(differences) > _SHOWN:
        differences[_SHOWN:] = [f"and {len(differences) - _SHOWN} more"]
    return (
        f"{folder} holds finished blocks of another run: {'; '.join(differences)}. Give the same model, scene and "
        "options to go on with it, or --overwrite (or delete that folder) to start anew."
    )


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The parts as plain words and values: {"options": {"chip": 512}} is {"option chip": "512"}."""
    leaves: dict[str, str] = {}
    for key, entry in value.items():
        word = {"options": "option", "versions": "version of"}.get(key, str(key)) if not prefix else str(key)
        name = f"{prefix} {word}".strip()
        if isinstance(entry, Mapping) and entry:
            leaves |= _leaves(entry, name)
        else:
            leaves[name] = entry if isinstance(entry, str) else canonical_json(entry)
    return leaves


def _short(text: str | None) -> str:
    if text is None:
        return "not given"
    return text if len(text) <= 60 else f"{text[:12]}... ({len(text)} characters)"
