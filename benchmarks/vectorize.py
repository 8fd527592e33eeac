"""Polygons of a class map: geoseg against `rasterio.features.shapes` + `shapely.geometry.shape`, in one run.

    python benchmarks/vectorize.py [--side 4096] [--smooth 5] [--repeat 3] [--landcover FILE] [--mosaic SIDE]

The map is smooth noise cut into five classes, or a land cover. Seconds on the clock, and of all cores; the ratios are
what to quote. Where GDAL's gdal_polygonize.py is installed, file to GeoPackage is compared with it too. With --mosaic
the land cover is repeated to SIDE x SIDE px, traced and joined alone: how long that takes, and how much memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import rasterio.features
import shapely.geometry
import xarray as xr
from affine import Affine
from scipy.ndimage import gaussian_filter

from geoseg import Legend, VectorOptions, vectorize
from geoseg.raster.landcover import read_legend
from geoseg.vector.blocks import trace_blocks
from geoseg.vector.join import join
from geoseg.vector.options import BLOCK
from geoseg.vector.sources import FileSource
from geoseg.vector.vectorize import job_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--smooth", type=float, default=5.0, help="sigma of the noise, pixels: 5 gives 56,000 polygons")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--landcover", type=Path)
    parser.add_argument("--mosaic", type=int)
    args = parser.parse_args()
    if args.mosaic:
        trace_mosaic(args.landcover, args.mosaic)
        return
    class_map = smooth_noise(args.side, args.smooth) if args.landcover is None else read(args.landcover)
    classes = [{"id": i, "name": f"c{i}", "color": f"#00000{i}"} for i in range(1, 6)]
    legend = Legend.from_json(json.dumps({"classes": classes}))
    array = located(class_map)
    vectorize(array[:64, :64], legend=legend)  # compiles
    ratios = []
    for _ in range(args.repeat):
        ours, polygons = timed(lambda: len(vectorize(array, legend=legend)))
        theirs, shapes = timed(lambda: sum(1 for _ in whole_raster(class_map)))
        ratios.append(theirs.clock / ours.clock)
        print(
            f"geoseg {ours} ({polygons} polygons), rasterio {theirs} ({shapes}): "
            f"{ratios[-1]:.1f} x on the clock, {theirs.cores / ours.cores:.1f} x of all cores"
        )
    print(f"median {np.median(ratios):.1f} x on the clock")
    if which("gdal_polygonize.py"):
        compare_files(class_map)


def trace_mosaic(landcover: Path, side: int) -> None:
    with TemporaryDirectory() as folder:
        source = FileSource.of(mosaic(landcover, side, Path(folder)), None)
        job = job_of(source, VectorOptions(), read_legend(landcover))
        taken, points = timed(
            lambda: len(join(trace_blocks(lambda w: job.encode(source.read(w)), source.blocks(BLOCK))).arcs.points)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{side} x {side} px, {points} points of borders: {taken}, {taken.cores:.2f} s of all cores, {peak:.2f} GiB")


def mosaic(landcover: Path, side: int, folder: Path) -> Path:
    """A VRT of the land cover beside itself."""
    with rasterio.open(landcover) as file:
        height, width = file.shape
    places = [(row, col) for row in range(0, side, height) for col in range(0, side, width)]
    parts = "".join(
        f"<SimpleSource><SourceFilename>{landcover.resolve()}</SourceFilename><SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/></SimpleSource>'
        for row, col in places
    )
    vrt = folder / "mosaic.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><NoDataValue>255</NoDataValue>{parts}</VRTRasterBand></VRTDataset>'
    )
    return vrt


def compare_files(class_map: np.ndarray) -> None:
    """GeoTIFF to GeoPackage; both start as a command, with all that they import."""
    with TemporaryDirectory() as folder:
        raster = Path(folder, "classes.tif")
        rows, cols = class_map.shape
        with rasterio.open(
            raster, "w", "GTiff", width=cols, height=rows, count=1, dtype="uint8", nodata=255, tiled=True,
            compress="deflate", crs="EPSG:32631", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000),
        ) as file:  # fmt: skip
            file.write(class_map, 1)
        command = [sys.executable, "-c", "from geoseg.cli import main; main()"]
        ours, _ = timed(lambda: run([*command, "vectorize", str(raster), "-o", f"{folder}/ours.gpkg"]))
        theirs, _ = timed(lambda: run(["gdal_polygonize.py", "-q", str(raster), "-f", "GPKG", f"{folder}/theirs.gpkg"]))
    print(f"file to file: geoseg {ours}, gdal_polygonize {theirs}: {theirs.clock / ours.clock:.1f} x")


def run(command: list[str]) -> int:
    return subprocess.run(command, check=True, capture_output=True).returncode


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def smooth_noise(side: int, sigma: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), sigma)
    return (np.digitize(noise, np.quantile(noise, (0.2, 0.4, 0.6, 0.8))) + 1).astype(np.uint8)


def located(class_map: np.ndarray) -> xr.DataArray:
    rows, cols = class_map.shape
    coords = {"y": 5_000_000 - np.arange(rows) - 0.5, "x": 500_000 + np.arange(cols) + 0.5}
    return xr.DataArray(class_map, dims=("y", "x"), coords=coords).rio.write_crs("EPSG:32631")


def whole_raster(class_map: np.ndarray):
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    for geometry, _ in rasterio.features.shapes(class_map, transform=transform):
        yield shapely.geometry.shape(geometry)


class Seconds(NamedTuple):
    clock: float
    cores: float

    def __str__(self) -> str:
        return f"{self.clock:.2f} s"


def timed(work: Callable[[], int]) -> tuple[Seconds, int]:
    clock, cores = time.perf_counter(), time.process_time()
    result = work()
    return Seconds(time.perf_counter() - clock, time.process_time() - cores), result


if __name__ == "__main__":
    import rioxarray  # noqa: F401 (the .rio accessor)

    main()
