"""Trees of NAIP chips (0.6 m), which no model was trained on: what classes the tree points of a folder lie on.

    python benchmarks/tree_points.py DIR [--model landcover-rgb landcover-rgbn ...]

DIR holds NAME.tif (red, green, blue, near infrared) and, for some of them, NAME_trees.geojson.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio

import geoseg

BANDS = {"red": "1", "green": "2", "blue": "3", "nir": "4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["landcover-rgb", "landcover-rgbn"])
    args = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    points = sorted(args.folder.glob("*_trees.geojson"))
    for name in args.model:
        model = geoseg.load_model(name)
        found: Counter[int] = Counter()
        for trees in points:
            found.update(ids_at(trees, trees.with_name(trees.name.replace("_trees.geojson", ".tif")), model))
        shares = {one.name: found[one.id] / found.total() for one in model.card.legend.classes}
        told = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        print(
            f"{model.card.name} {model.card.version}: {found.total()} points of {len(points)} chips: {told}", flush=True
        )


def ids_at(trees: Path, scene: Path, model: geoseg.Model) -> list[int]:
    ids = geoseg.segment(geoseg.open_scene(scene, bands=BANDS), model).class_map.to_numpy()
    with rasterio.open(scene) as raster:
        places = gpd.read_file(trees).to_crs(raster.crs).geometry
        cols, rows = ~raster.transform * (places.x.to_numpy(), places.y.to_numpy())
    inside = (np.floor(part).astype(int) for part in (rows, cols))
    row, col = (part.clip(0, length - 1) for part, length in zip(inside, ids.shape, strict=True))
    return ids[row, col].tolist()


if __name__ == "__main__":
    main()
