"""GeoParquet in parts: a folder with a file for each class, or for each tile of the ground."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa

from geoseg.errors import InputError
from geoseg.raster.disk import publish_bytes, remove, sync
from geoseg.vector.export import FORMATS, Content, write_parquet, writing_error
from geoseg.vector.made_by import FOLDER_RECORD, record_of

_EMPTY = "empty.parquet"


@dataclass(frozen=True, slots=True)
class Partition:
    """How polygons are dealt out to files.

    Attributes:
        side: of a tile, in units of the CRS; None for a file for each class.
    """

    side: float | None = None

    @classmethod
    def parse(cls, text: str) -> Partition:
        """`class`, or `tile=SIDE`.

        Raises:
            InputError: it is neither.
        """
        if text == "class":
            return cls()
        match = re.fullmatch(r"tile=(\d+(\.\d*)?)", text)
        if match is None or float(match[1]) == 0:
            raise InputError(f"--partition is class, or tile=SIDE as in tile=1000 (units of the CRS), not {text!r}.")
        return cls(float(match[1]))

    def names(self, polygons: gpd.GeoDataFrame) -> list[str]:
        """The part of each polygon; a tile has those whose bounds have their center in it."""
        if self.side is None:
            return [f"class_name={name}" for name in polygons["class_name"]]
        bounds = polygons.geometry.bounds
        col = np.floor((bounds["minx"] + bounds["maxx"]) / 2 / self.side).astype("int64")
        row = np.floor((bounds["miny"] + bounds["maxy"]) / 2 / self.side).astype("int64")
        return [f"tile={x}_{y}" for x, y in zip(col, row, strict=True)]


def check_partitioned_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder that could not be written.

    Raises:
        InputError: with the remedy.
    """
    if FORMATS.get(path.suffix.lower()) != "Parquet":
        raise InputError(
            f"{path}: --partition writes a folder of GeoParquet files; give it a name that ends in .parquet."
        )
    if not path.parent.is_dir():
        raise InputError(f"The output folder {path.parent} does not exist; create it first (mkdir -p {path.parent}).")
    if path.is_file() or (path.is_dir() and not (path / FOLDER_RECORD).is_file() and any(path.iterdir())):
        raise InputError(f"{path} exists and is no folder of polygons that geoseg wrote; give another name.")
    if path.is_dir() and not overwrite:
        raise InputError(f"The output {path} exists; give --overwrite to replace it, or another name.")


def write_partitions(content: Content, path: Path, partition: Partition, folder: Path) -> None:
    """Write a folder with a folder for each part, as Hive names them; it appears whole.

    Args:
        content: what to write.
        path: the folder.
        partition: how to deal it out.
        folder: where it is until it is whole.

    Raises:
        GeosegError: writing failed; an older folder is as it was.
    """
    temporary, old = folder / "new", folder / "old"
    try:
        temporary.mkdir()
        polygons = content.whole()
        names = np.array(partition.names(polygons), dtype=object)
        for name in sorted(set(names)):
            (temporary / name).mkdir()
            write_parquet(polygons[names == name], temporary / name / "part-0.parquet")
        if not names.size:  # a table of no rows still has its columns
            write_parquet(polygons, temporary / _EMPTY)
        publish_bytes(temporary / FOLDER_RECORD, record_of(content.runs).encode())
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync(path.parent)
    except (OSError, pa.ArrowException) as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise writing_error(path, error) from error
    finally:
        remove(temporary)
        shutil.rmtree(old, ignore_errors=True)
