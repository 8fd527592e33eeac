"""One class raster to one file: killed runs go on, the same command knows its output, both at once is one pass."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from geopandas.testing import assert_geodataframe_equal
from killing import KILLED
from test_pipeline import by_index, index_scene, run_options
from test_shapes import blobs
from test_vectorize import UTM, write_raster

from geoseg.errors import BlockError, InputError
from geoseg.grid import Window
from geoseg.pipeline import vectorize_file
from geoseg.raster.blocks import Block, BlockWriter
from geoseg.vector import VectorOptions, vectorize_raster
from geoseg.vector.blocks import BlockPixels, trace_alone
from geoseg.vector.sources import FileSource
from geoseg.vector.staged import from_bytes, to_bytes
from geoseg.vector.trace import BACKGROUND

DRAWING = VectorOptions(classes=["water", "vegetation"])


@pytest.fixture
def windows_read(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows that are read of class rasters; they are read all the same."""
    seen: list[Window] = []
    read = FileSource.read

    def noted(self: FileSource, window: Window) -> Any:
        seen.append(window)
        return read(self, window)

    monkeypatch.setattr(FileSource, "read", noted)
    return seen


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"a folder" for path in folder.iterdir()}


@pytest.mark.parametrize(("workers", "with_confidence"), [(1, False), (2, True)])
def test_polygons_drawn_while_segmenting_are_those_of_the_finished_file(
    tmp_path: Path, windows_read: list[Window], workers: int, with_confidence: bool
) -> None:
    scene, cover = index_scene(tmp_path / "scene.tif"), tmp_path / "cover.tif"
    confidence = tmp_path / "confidence.tif" if with_confidence else None
    polygons, apart = tmp_path / "cover.gpkg", tmp_path / "apart.gpkg"
    options = run_options(workers=workers)
    by_index(scene, cover, confidence=confidence, polygons=polygons, drawing=DRAWING, run=options)
    assert windows_read == []
    drawing = VectorOptions(classes=DRAWING.classes, confidence=confidence, block=31)
    vectorize_file(cover, apart, drawing)
    assert windows_read
    assert polygons.read_bytes() == apart.read_bytes()
    assert vectorize_file(cover, polygons, drawing).up_to_date
    assert {path.suffix for path in tmp_path.iterdir()} <= {".tif", ".xml", ".gpkg"}


def test_only_what_is_not_traced_is_read_again(tmp_path: Path, windows_read: list[Window]) -> None:
    """A run began without polygons: the blocks that it finished were not traced then."""
    scene, cover, polygons = index_scene(tmp_path / "scene.tif"), tmp_path / "cover.tif", tmp_path / "cover.gpkg"
    by_index(scene, cover)
    summary = by_index(scene, cover, polygons=polygons, drawing=DRAWING)
    assert set(summary.seconds) == {"vectorize"}
    assert sum(window.area for window in windows_read) == 90 * 130
    vectorize_file(cover, tmp_path / "apart.gpkg", DRAWING)
    assert polygons.read_bytes() == (tmp_path / "apart.gpkg").read_bytes()


CHILD = """
import sys
from killing import Death
from geoseg.vector import VectorOptions, staged, vectorize_raster

staged.PATIENCE_S = 0
sys.addaudithook(Death("os.rename", sys.argv[3], int(sys.argv[4])))
vectorize_raster(sys.argv[1], sys.argv[2], VectorOptions(block=40, confidence=sys.argv[5], simplify_m=1.0))
"""


@pytest.mark.parametrize(("end", "times", "left"), [("/done/2/1.json", 1, 9), ("/p.gpkg", 1, 0)])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, windows_read: list[Window], end: str, times: int, left: int
) -> None:
    values = blobs(160)
    raster = write_raster(tmp_path / "cover.tif", values, UTM, nodata=255)
    stored = np.random.default_rng(0).integers(0, 201, values.shape).astype(np.uint8)
    confidence = write_raster(tmp_path / "confidence.tif", stored, UTM, nodata=255)
    whole, killed = tmp_path / "whole" / "p.gpkg", tmp_path / "killed" / "p.gpkg"
    for path in (whole, killed):
        path.parent.mkdir()
    options = VectorOptions(block=40, confidence=confidence, simplify_m=1.0)
    vectorize_raster(raster, whole, options)
    windows_read.clear()
    told = [str(raster), str(killed), end, str(times), str(confidence)]
    done = subprocess.run([sys.executable, "-c", CHILD, *told], cwd=Path(__file__).parent, check=False)
    assert done.returncode == KILLED
    assert not killed.exists()
    assert not vectorize_raster(raster, killed, options).up_to_date
    assert abs(len(windows_read) - left) <= (4 if left else 0)  # up to 4 blocks are in work at once
    assert len(windows_read) < 16
    assert files_in(killed.parent) == files_in(whole.parent)


def test_what_is_done_in_seconds_is_staged_only_where_the_run_fails(
    tmp_path: Path, windows_read: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    raster, output = write_raster(tmp_path / "cover.tif", blobs(80), UTM, nodata=255), tmp_path / "p.gpkg"
    written: list[Block] = []
    write = BlockWriter.write_contents
    monkeypatch.setattr(
        BlockWriter, "write_contents", lambda self, block, *rest: (written.append(block), write(self, block, *rest))
    )
    options = VectorOptions(block=20, workers=1)
    vectorize_raster(raster, tmp_path / "whole.gpkg", options)
    assert written == []
    assert len(windows_read) == 16
    read = FileSource.read

    def broken(self: FileSource, window: Window) -> Any:
        if window.row == 40:
            raise OSError("the disk is gone")
        return read(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "read", broken)
        with pytest.raises(BlockError, match="the disk is gone"):
            vectorize_raster(raster, output, options)
    assert sorted(written) == [(row, col) for row in (0, 1) for col in range(4)]
    windows_read.clear()
    vectorize_raster(raster, output, options)
    assert len(windows_read) == 8
    assert output.read_bytes() == (tmp_path / "whole.gpkg").read_bytes()


def test_what_a_block_found_survives_as_bytes() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (7, 9)).astype(np.int32)
    codes[rng.random(codes.shape) < 0.2] = BACKGROUND
    units = rng.integers(-1, 201, codes.shape).astype(np.int32)
    for window in (Window(5, 6, 7, 9), Window(0, 0, 7, 9), Window(5, 6, 1, 9)):
        pixels = BlockPixels(codes, units, units.astype(np.uint8)).part(slice(window.height), slice(None))
        lone = trace_alone(pixels, window, (40, 40))
        found = from_bytes(to_bytes(lone), window)
        assert to_bytes(found) == to_bytes(lone)
        assert (found.inner is None) == (window.height == 1)
        if found.inner is not None and lone.inner is not None:
            assert found.inner.window == lone.inner.window


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb", ".geojson"])
def test_the_same_command_says_up_to_date(tmp_path: Path, suffix: str, windows_read: list[Window]) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(40), UTM, nodata=255)
    output = tmp_path / f"p{suffix}"
    first = vectorize_raster(raster, output, VectorOptions(min_area_m2=2))
    before, _ = output.read_bytes(), windows_read.clear()
    again = vectorize_raster(raster, output, VectorOptions(min_area_m2=2, block=7))
    assert again.up_to_date
    assert (again.counts, again.areas) == (first.counts, first.areas)
    assert output.read_bytes() == before
    assert windows_read == []
    with pytest.raises(InputError, match="exists; give --overwrite"):
        vectorize_raster(raster, output, VectorOptions(min_area_m2=3))
    write_raster(raster, blobs(40, seed=1), UTM, nodata=255)
    with pytest.raises(InputError, match="exists; give --overwrite"):
        vectorize_raster(raster, output, VectorOptions(min_area_m2=2))
    assert not vectorize_raster(raster, output, VectorOptions(min_area_m2=2), overwrite=True).up_to_date
    assert output.read_bytes() != before


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_blocks_change_no_byte(tmp_path: Path, workers: int) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(90), UTM, nodata=255)
    expected = tmp_path / "expected.gpkg"
    vectorize_raster(raster, expected, VectorOptions(fill_holes_m2=3))
    vectorize_raster(raster, tmp_path / "p.gpkg", VectorOptions(fill_holes_m2=3, block=17, workers=workers))
    assert (tmp_path / "p.gpkg").read_bytes() == expected.read_bytes()


def test_values_unknown_to_the_legend_are_told_after_a_kill_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.full((20, 20), 1, np.uint8)
    values[:5, :5] = 9
    raster = write_raster(tmp_path / "cover.tif", values, UTM, nodata=255)
    output = tmp_path / "p.gpkg"
    output.with_name("p.gpkg.geoseg-partial").mkdir()
    code = CHILD.replace("block=40, confidence=sys.argv[5], simplify_m=1.0", "block=10")
    told = [str(raster), str(output), "/p.gpkg", "1"]
    done = subprocess.run([sys.executable, "-c", code, *told], cwd=Path(__file__).parent, check=False)
    assert done.returncode == KILLED
    vectorize_raster(raster, output, VectorOptions(block=10))
    assert "9" in caplog.text
    assert gpd.read_file(output, layer="building").area_m2.tolist() == [(400 - 25) * 0.25]


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb", ".geojson"])
@pytest.mark.parametrize("options", [{}, {"connectivity": 8, "min_area_m2": 1}, {"simplify_m": 1.0}])
def test_few_polygons_at_a_time_are_the_same_as_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, options: dict[str, Any]
) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(60), UTM, nodata=255)
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    vectorize_raster(raster, whole, VectorOptions(single_layer=True, **options))
    monkeypatch.setattr("geoseg.vector.table.POINTS", 300)
    monkeypatch.setattr("geoseg.vector.table.KEPT", 0)
    vectorize_raster(raster, parts, VectorOptions(single_layer=True, **options))
    if suffix != ".gpkg":  # which counts its transactions
        assert whole.read_bytes() == parts.read_bytes()
    read = gpd.read_parquet if suffix == ".parquet" else partial(gpd.read_file, layer=0)
    assert len(read(parts)) > 14
    assert_geodataframe_equal(read(parts), read(whole))
