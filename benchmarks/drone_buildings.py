"""Buildings of drone mosaics of 0.15 m, which no model was trained on: IoU of the class building.

    python benchmarks/drone_buildings.py DIR [--model landcover-rgb ...]

DIR holds NAME_rgb.tif and NAME_mask.tif (on the same grid; not 0 within a building).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import rasterio

import geoseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["landcover-rgb"])
    args = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    scenes = sorted(args.folder.glob("*_rgb.tif"))
    names = [scene.name.removesuffix("_rgb.tif") for scene in scenes]
    print(f"| model | {' | '.join(names)} | all | precision | recall |\n|{'---|' * (len(names) + 4)}")
    for name in args.model:
        model = geoseg.load_model(name)
        building = model.card.legend.by_name("building").id
        counts = []
        for scene in scenes:
            with rasterio.open(scene.with_name(scene.name.replace("_rgb", "_mask"))) as raster:
                reference = raster.read(1) != 0
            ids = geoseg.segment(geoseg.open_scene(scene), model).class_map.to_numpy()
            found, reference = ids == building, reference & (ids != model.card.legend.nodata)
            counts.append([(found & reference).sum(), found.sum(), reference.sum()])
        both, ours, theirs = np.array(counts).T
        total = (both.sum(), ours.sum(), theirs.sum())
        scores = [*(both / (ours + theirs - both)), total[0] / (total[1] + total[2] - total[0])]
        scores += [total[0] / total[1], total[0] / total[2]]
        version = f"{model.card.name} {model.card.version}"
        print(f"| {version} | {' | '.join(f'{score:.2f}' for score in scores)} |", flush=True)


if __name__ == "__main__":
    main()
