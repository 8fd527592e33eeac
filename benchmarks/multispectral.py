"""landcover-ms beside spectral-index, on tiles of groups that landcover-ms was not trained on.

    python benchmarks/multispectral.py DIR [--model landcover-ms] [--draws 1000]

DIR is that of the recipe landcover_ms. The reference is ESA WorldCover, another model's answer for another date.
Intervals of 95 %: bootstrap over groups of tiles that share ground.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections import defaultdict
from csv import DictReader
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

import geoseg
from geoseg.training.recipes.landcover_ms import BANDS, GSD_M, WORLDCOVER, sources

COARSE = ("built_up", "bare", "vegetation", "water")  # by spectral-index: other is neither of the last two
COMPARED = ("vegetation", "water")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="landcover-ms")
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with (args.folder / "tiles.csv").open() as file:
        groups = {int(row["tile"]): row["overlap_group"] for row in DictReader(file)}
    held = [Path(source.scene) for source in sources(args.folder) if source.role == "validate"]
    models = {name: geoseg.load_model(name) for name in (args.model, "spectral-index")}
    counts: dict[str, dict[str, NDArray[np.int64]]] = {
        name: defaultdict(lambda: np.zeros((len(COARSE) + 1, len(COARSE) + 1), np.int64)) for name in models
    }
    for tile in held:
        reference = worldcover(tile.with_name(f"{tile.stem}_worldcover.png"))
        scene = geoseg.open_scene(tile, bands=BANDS, nodata=-9999, gsd_m=GSD_M)
        scene.attrs["scale"] = 1e-4
        for name, model in models.items():
            found = coarse_of(model.card.legend, geoseg.segment(scene, model).class_map.to_numpy())
            known = (reference >= 0) & (found >= 0)
            pairs = np.ravel_multi_index((reference[known], found[known]), (len(COARSE) + 1,) * 2)
            counts[name][groups[int(tile.stem[1:])]] += np.bincount(pairs, minlength=(len(COARSE) + 1) ** 2).reshape(
                len(COARSE) + 1, -1
            )
    print(f"{len(held)} tiles in {len(counts[args.model])} groups\n")
    report(counts, args.model, args.draws)


def report(counts: dict[str, dict[str, NDArray[np.int64]]], ours: str, draws: int) -> None:
    """Table of IoU, and of the difference in what both tell."""
    by_group = {name: np.stack([matrices[group] for group in sorted(matrices)]) for name, matrices in counts.items()}
    rng = np.random.default_rng(0)
    number = len(by_group[ours])
    drawn = rng.integers(0, number, (draws, number))
    print("| class | " + " | ".join(by_group) + " | difference, 95 % interval |\n|" + "---|" * (len(by_group) + 2))
    for index, name in enumerate(COARSE):
        values = [f"{iou(m.sum(0))[index]:.3f}" if told(model, name) else "" for model, m in by_group.items()]
        shares = {model: np.array([iou(m[d].sum(0))[index] for d in drawn]) for model, m in by_group.items()}
        differences = shares[ours] - shares["spectral-index"]
        low, high = np.nanpercentile(differences, [2.5, 97.5])
        print(f"| {name} | {' | '.join(values)} | {f'{low:+.3f} to {high:+.3f}' if name in COMPARED else ''} |")


def told(model: str, name: str) -> bool:
    return model != "spectral-index" or name in COMPARED


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    hits = np.diagonal(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def worldcover(path: Path) -> NDArray[np.int64]:
    """Index in COARSE; -1 where there is no label, or one that is not judged."""
    table = np.full(256, -1)
    for code, name in WORLDCOVER.items():
        table[int(code)] = COARSE.index({"tree": "vegetation", "low_vegetation": "vegetation"}.get(name, name))
    with rasterio.open(path) as raster:
        return table[raster.read(1)]


def coarse_of(legend: geoseg.Legend, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index in COARSE of class ids; past its end for `other`, -1 for nodata."""
    table = np.full(256, -1)
    for entry in legend.classes:
        name = entry.group or entry.name
        table[entry.id] = COARSE.index(name) if name in COARSE else len(COARSE)
    return table[ids]


if __name__ == "__main__":
    main()
