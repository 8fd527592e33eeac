"""Buildings as objects: models side by side on scenes with reference footprints.

`python benchmarks/instances.py --data DIR --model landcover-rgb --model run/buildings-rgb [--places oam,flair]`

DIR holds `oam_buildings/` (drone mosaics at about 0.15 m with outlines) and `flair/` (zone B, of which the connected
parts of the classes building and greenhouse are the reference). Prints AP50, AP, PQ, SQ and RQ of each place and model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from geoseg.inference.plan import RunOptions
from geoseg.models import load_model
from geoseg.objects.evaluate import ObjectScores, evaluate_objects
from geoseg.objects.files import instances_file
from geoseg.objects.outline import OutlineOptions
from geoseg.raster.labels import LabelOptions

BUILDINGS = ("1", "18")
OTHERS = tuple(str(code) for code in range(20) if str(code) not in BUILDINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--places", default="oam,flair")
    parser.add_argument("--min-area", type=float, default=10.0)
    parser.add_argument("--least-score", type=float, default=0.3, help="of a detector's objects: AP wants many")
    args = parser.parse_args()
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
    if "oam" in wanted:
        for scene in sorted((data / "oam_buildings").glob("*_rgb.tif")):
            place = scene.stem.removesuffix("_rgb")
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
        ids = Path(folder) / "ids.tif"
        instances_file(
            scene,
            Path(folder) / "found.gpkg",
            model=load_model(name),
            raster=ids,
            shape=OutlineOptions(min_area_m2=min_area_m2),
            least_score=least_score,
            run=RunOptions(device="cpu"),
        )
        return evaluate_objects(ids, truth, options=options)


if __name__ == "__main__":
    main()
