"""Coarser copies of the aerial zones, to carry to a machine with a GPU: `python -m geoseg.training.recipes.pack`.

`--data DIR --out DIR` copies `flair/` at 0.3 m, which the recipes see at 0.4 m anyway, but for what is held out, which
is judged as it came. `dubai/` is copied as it is, too. What is written takes the place of `--data` in the recipes. With
16 processes that read and a large GPU,
`python -m geoseg.training.recipes.landcover_rgb --data PACKED --out OUT --batch 64 --loaders 15 --steps N` then trains.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling

from geoseg.training.recipes.landcover_rgb import HELD_OUT

GSD_M = 0.3
JPEG = {"compress": "jpeg", "jpeg_quality": 85}


def main() -> None:
    """Read the command line and copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for folder in ("flair", "dubai"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    for path in sorted((args.data / "flair").glob("zone_*.tif")):
        copy = shutil.copyfile if any(part in path.name for part in HELD_OUT) else coarser
        copy(path, args.out / "flair" / path.name)
    for path in sorted((args.data / "dubai").glob("tile*")):
        shutil.copyfile(path, args.out / "dubai" / path.name)


def coarser(path: Path, copy: Path) -> None:
    """Pixels by their mean, labels by the most frequent."""
    is_label = path.stem.endswith("_labels")
    with rasterio.open(path) as source:
        rows, cols = (round(length * source.res[0] / GSD_M) for length in source.shape)
        method = Resampling.mode if is_label else Resampling.average
        pixels = source.read(out_shape=(source.count, rows, cols), resampling=method)
        transform = source.transform @ Affine.scale(source.width / cols, source.height / rows)
        profile = {"driver": "GTiff", "dtype": np.uint8, "count": source.count, "height": rows, "width": cols}
        packing = (
            {"compress": "deflate"} if is_label else JPEG | ({"photometric": "ycbcr"} if source.count == 3 else {})
        )
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256}
        with rasterio.open(copy, "w", crs=source.crs, transform=transform, **profile, **packing, **tiles) as out:
            out.write(pixels)


if __name__ == "__main__":
    main()
