"""Buildings as objects: models side by side on scenes with reference footprints.

`python benchmarks/instances.py --data DIR --model landcover-rgb --model run/buildings-rgb [--places oam,flair]`

DIR holds `oam_buildings/` (drone mosaics at about 0.15 m with outlines) and `flair/` (zone B, of which the connected
parts of the classes building and greenhouse are the reference). Prints AP50, AP, PQ, SQ and RQ of each place and model.

With `--chips 768 1152 1536` the reference plays no part: printed is how many of the objects that one size of chips
finds another finds too, with an IoU of 0.9 or more: 2 * matched / (found by one + found by the other). Chips are in
pixels that the model sees; the halo is the model's for all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from geoseg.grid.window import windows_of
from geoseg.inference.plan import RunOptions
from geoseg.models import load_model
from geoseg.models.pooled import pool_factor
from geoseg.objects.evaluate import BLOCK, ObjectScores, evaluate_objects
from geoseg.objects.files import instances_file
from geoseg.objects.outline import OutlineOptions
from geoseg.objects.reference import IdRaster
from geoseg.objects.scores import Overlaps
from geoseg.raster.labels import LabelOptions
from geoseg.raster.scene import open_reader

BUILDINGS = ("1", "18")
ALIKE = 0.9
OTHERS = tuple(str(code) for code in range(20) if str(code) not in BUILDINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--places", default="oam,flair", help="or mosaics by name, as in kampala_1,flair")
    parser.add_argument("--min-area", type=float, default=10.0)
    parser.add_argument("--least-score", type=float, default=0.3, help="of a detector's objects: AP wants many")
    parser.add_argument("--chips", type=int, nargs="+", default=[], help="sizes of chips to compare, two or more")
    args = parser.parse_args()
    if args.chips:
        compare_chips(args)
        return
    print("place  model  AP50  AP  PQ  SQ  RQ  found  reference  seconds")
    for name in args.model:
        for place, scene, truth, options in places(args.data, args.places.split(",")):
            started = time.perf_counter()
            scores = judged(name, scene, truth, options, args.min_area, args.least_score)
            row = scores.by_class["building"]
            told = " ".join(f"{row[key]:.3f}" for key in ("ap50", "ap", "pq", "sq", "rq"))
            found, there = row["matched"] + row["unmatched"], row["matched"] + row["missed"]
            seconds = time.perf_counter() - started
            print(f"{place}  {Path(name).name}  {told}  {found:.0f}  {there:.0f}  {seconds:.0f}", flush=True)


def places(data: Path, wanted: list[str]) -> Iterator[tuple[str, Path, Path, LabelOptions]]:
    """Name, scene, reference, and what the reference does not say."""
    for scene in sorted((data / "oam_buildings").glob("*_rgb.tif")):
        place = scene.stem.removesuffix("_rgb")
        if {"oam", place} & set(wanted):
            yield place, scene, scene.with_name(f"{place}_buildings.geojson"), LabelOptions()
    if "flair" in wanted:
        meanings = dict.fromkeys(BUILDINGS, "building") | dict.fromkeys(OTHERS, "other")
        scene = data / "flair" / "zone_B_rgb.tif"
        yield "zone B", scene, scene.with_name("zone_B_labels.tif"), LabelOptions(meanings=meanings)


def judged(
    name: str, scene: Path, truth: Path, options: LabelOptions, min_area_m2: float, least_score: float
) -> ObjectScores:
    """A model's buildings against the reference."""
    with tempfile.TemporaryDirectory() as folder:
        ids = find(Path(folder), name, scene, min_area_m2, least_score, RunOptions(device="cpu"))
        return evaluate_objects(ids, truth, options=options)


def find(folder: Path, name: str, scene: Path, min_area_m2: float, least_score: float, run: RunOptions) -> Path:
    """The raster of ids of a model's buildings."""
    ids = folder / "ids.tif"
    shape = OutlineOptions(min_area_m2=min_area_m2)
    found = folder / "found.gpkg"
    instances_file(
        scene, found, model=load_model(name), raster=ids, shape=shape, least_score=least_score, run=run, overwrite=True
    )
    return ids


def compare_chips(args: argparse.Namespace) -> None:
    """A row for each place, model and pair of sizes."""
    print("place  model  chips  found  matched  share")
    for name in args.model:
        for place, scene, *_ in places(args.data, args.places.split(",")):
            pool = pool_factor(load_model(name).card, open_reader(scene).gsd_m)
            with tempfile.TemporaryDirectory() as folder:
                found = {}
                for chip in args.chips:
                    (part := Path(folder) / str(chip)).mkdir()
                    run = RunOptions(device="cpu", pool=pool, chip=pool * chip)
                    found[chip] = find(part, name, scene, args.min_area, args.least_score, run)
                for one, other in combinations(args.chips, 2):
                    counts, matched = matches(found[one], found[other])
                    share = 2 * matched / max(1, sum(counts))
                    sizes, both = f"{one} and {other}", f"{counts[0]} and {counts[1]}"
                    print(f"{place}  {Path(name).name}  {sizes}  {both}  {matched}  {share:.3f}", flush=True)


def matches(one: Path, other: Path) -> tuple[Sequence[int], int]:
    """Numbers of objects of two rasters of ids, and how many of them are the same: IoU of 0.9 or more."""
    sides = IdRaster.of(one), IdRaster.of(other)
    counts = [len(side.segments.class_id) for side in sides]
    overlaps = Overlaps(*counts)
    for window in windows_of(sides[0].facts.shape, BLOCK):
        overlaps.add(*(np.maximum(side.paint(window), 0) for side in sides))
    return counts, int((overlaps.pairs().iou >= ALIKE).sum())


if __name__ == "__main__":
    main()
