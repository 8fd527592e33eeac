"""Polygons of a class map: geoseg against `rasterio.features.shapes` + `shapely.geometry.shape`, in one run.

    python benchmarks/vectorize.py [--side 4096] [--repeat 3]

The map is smooth noise cut into five classes. CPU seconds of this process; the ratio is what to quote.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import rasterio.features
import shapely.geometry
import xarray as xr
from affine import Affine
from scipy.ndimage import gaussian_filter

from geoseg import Legend, vectorize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    class_map = smooth_noise(args.side)
    classes = [{"id": i, "name": f"c{i}", "color": f"#00000{i}"} for i in range(1, 6)]
    legend = Legend.from_json(json.dumps({"classes": classes}))
    array = located(class_map)
    vectorize(array[:64, :64], legend=legend)  # compiles
    ratios = []
    for _ in range(args.repeat):
        ours, polygons = cpu_seconds(lambda: len(vectorize(array, legend=legend)))
        theirs, shapes = cpu_seconds(lambda: sum(1 for _ in whole_raster(class_map)))
        ratios.append(theirs / ours)
        print(f"geoseg {ours:.2f} s ({polygons} polygons), rasterio {theirs:.2f} s ({shapes}), ratio {ratios[-1]:.1f}")
    print(f"median ratio {np.median(ratios):.1f}")


def smooth_noise(side: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), 4)
    return (np.digitize(noise, np.quantile(noise, (0.2, 0.4, 0.6, 0.8))) + 1).astype(np.uint8)


def located(class_map: np.ndarray) -> xr.DataArray:
    rows, cols = class_map.shape
    coords = {"y": 5_000_000 - np.arange(rows) - 0.5, "x": 500_000 + np.arange(cols) + 0.5}
    return xr.DataArray(class_map, dims=("y", "x"), coords=coords).rio.write_crs("EPSG:32631")


def whole_raster(class_map: np.ndarray):
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    for geometry, _ in rasterio.features.shapes(class_map, transform=transform):
        yield shapely.geometry.shape(geometry)


def cpu_seconds(work: Callable[[], int]) -> tuple[float, int]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


if __name__ == "__main__":
    import rioxarray  # noqa: F401 (the .rio accessor)

    main()
