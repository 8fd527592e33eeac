"""Which runs made a file of polygons: kept inside of it, so that the same command knows its own output again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
from pyogrio.errors import DataSourceError

_KEY = "GEOSEG_RUNS"
_DESCRIPTION = "DESCRIPTION"  # where FlatGeobuf and GeoJSON have a place for it
FOLDER_RECORD = "_geoseg.json"  # in a folder of partitions; readers of such folders pass over names that begin with _


@dataclass(frozen=True, slots=True)
class Made:
    """One run and what it wrote.

    Attributes:
        digest: of the rasters and of all that was asked for.
        counts: polygons of each class, by name.
        areas: sum of their areas, by name, in `unit`.
        unit: "m2", or "px" where there is no CRS.
        regularized: polygons that were to get straight walls.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    digest: str
    counts: dict[str, int] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    unit: str = "m2"
    regularized: int = 0
    fallbacks: int = 0


def made_by(path: Path) -> list[Made]:
    """The runs whose polygons a file or folder holds, first to last; none where nothing is known of it."""
    try:
        if path.is_dir():
            text = (path / FOLDER_RECORD).read_text(encoding="utf-8")
        elif path.suffix.lower() in (".parquet", ".geoparquet"):
            attributes = (pq.read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", b"{}")
            text = json.loads(attributes).get(_KEY, "[]")
        else:
            found = pyogrio.read_info(path, layer=pyogrio.list_layers(path)[0, 0])
            told = (found["layer_metadata"] or {}) | (found["dataset_metadata"] or {})
            text = told.get(_KEY) or told.get(_DESCRIPTION, "[]")
        return [Made(**run) for run in json.loads(text)]
    except (OSError, ValueError, TypeError, IndexError, AttributeError, pa.ArrowException, DataSourceError):
        return []


def record_of(runs: Sequence[Made]) -> str:
    return json.dumps([asdict(run) for run in runs], sort_keys=True)


def writing_options(driver: str, runs: Sequence[Made]) -> dict[str, Any]:
    """What a driver is told so that its file holds the record."""
    if not runs:
        return {}
    return {"dataset_metadata": {_KEY: record_of(runs)}} if driver == "GPKG" else {}


def layer_options(driver: str, runs: Sequence[Made]) -> Mapping[str, str]:
    return {_DESCRIPTION: record_of(runs)} if runs and driver in ("FlatGeobuf", "GeoJSON") else {}


def attributes(runs: Sequence[Made]) -> dict[str, str]:
    """What a table carries into a Parquet file."""
    return {_KEY: record_of(runs)} if runs else {}
