"""New and removed buildings: against masks drawn by hand, on synthetic pairs, and where nothing changed.

    python benchmarks/change.py DIR [--model landcover-rgb ...] [--prior 0.2 ...] [--min-area 0 ...] [--synthetic 4]
        [--radiometry none]

DIR holds NAIP sites of 256 x 256 px and 0.6 m, SITE_YEAR.tif, and change_2016_2020/SITE_building_change.tif: 0 none,
1 new, 2 removed, 255 ignore. Sites without such a mask are taken as unchanged from each date to the next: whatever is
found there counts as false, so that the number is an upper bound. A model of one date is tried twice, by its class maps
alone (`maps`) and by its probabilities with a prior; one of two dates as it is.

A part of the reference is found where 30 % of it is; a part of ours is false where less than 30 % of it is in the
reference. Parts are 4-connected.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import label

import geoseg
from geoseg.legend import LANDCOVER
from geoseg.models.pairs import PairClasses

ENOUGH = 0.3
KINDS = ("new", "removed")
GSD_M = 0.6
SIDE = 768
FIRST_SEED = 1002  # of synthetic places; no training uses it
HEAD = "| on | model | prior | least m² | kind | px: precision | recall | F1 | parts | found | false | precision | F1 |"


class Case(NamedTuple):
    """Two dates, and what changed: 0 none, 1 new, 2 removed, 255 ignore."""

    name: str
    before: Path
    after: Path
    reference: NDArray[np.uint8]


class Way(NamedTuple):
    """How change is found: a model, by class maps or by probabilities."""

    model: str
    by: str
    options: geoseg.ChangeOptions
    dates: geoseg.DateOptions = geoseg.DateOptions()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["landcover-rgb"])
    parser.add_argument("--prior", type=float, nargs="+", default=[0.2])
    parser.add_argument("--min-area", type=float, nargs="+", default=[0.0, 40.0])
    parser.add_argument("--synthetic", type=int, default=4, help="number of synthetic pairs")
    parser.add_argument("--radiometry", choices=("none", "mad", "histogram"), default="none")
    args = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    dates = geoseg.DateOptions(radiometry=args.radiometry)
    ways = [way._replace(dates=dates) for way in ways_of(args.model, args.prior, args.min_area)]
    with TemporaryDirectory() as work:
        sets = {
            "masks": list(masked(args.folder)),
            "synthetic": [synthetic(Path(work), FIRST_SEED + n) for n in range(args.synthetic)],
        }
        print(HEAD + "\n|" + "---|" * 13)
        for name, cases in sets.items():
            for way in ways:
                for kind, counts in score(cases, way, Path(work)).items():
                    print(f"| {name} | {told_way(way)} | {kind} | {told(counts)} |", flush=True)
        print("\n| model | prior | least m² | pairs without a mask | false parts | per pair | worst |\n|" + "---|" * 7)
        cases = list(unchanged(args.folder))
        for way in ways:
            false = [sum(c["false"] for c in score([case], way, Path(work)).values()) for case in cases]
            mean, worst = np.mean(false), max(false)
            print(f"| {told_way(way)} | {len(cases)} | {sum(false)} | {mean:.2f} | {worst} |", flush=True)


def ways_of(models: list[str], priors: list[float], areas: list[float]) -> Iterator[Way]:
    for least in areas:
        for model in models:
            if PairClasses.of(geoseg.load_model(model).card) is not None:
                yield Way(model, "pair", geoseg.ChangeOptions(min_area_m2=least))
                continue
            yield Way(model, "maps", geoseg.ChangeOptions(min_area_m2=least))
            for prior in priors:
                yield Way(model, "probabilities", geoseg.ChangeOptions(prior=prior, min_area_m2=least))


def masked(folder: Path) -> Iterator[Case]:
    for mask in sorted(folder.glob("change_2016_2020/*_building_change.tif")):
        site = mask.name.removesuffix("_building_change.tif")
        yield Case(site, folder / f"{site}_2016.tif", folder / f"{site}_2020.tif", read(mask))


def unchanged(folder: Path) -> Iterator[Case]:
    known = {case.name for case in masked(folder)}
    for site in sorted({path.stem[:-5] for path in folder.glob("*.tif")} - known):
        for before, after in pairwise(sorted(folder.glob(f"{site}_????.tif"))):
            yield Case(before.stem + after.stem[-5:], before, after, np.zeros_like(read(before)))


def synthetic(folder: Path, seed: int) -> Case:
    scene = geoseg.SyntheticScene((SIDE, SIDE), seed=seed, gsd_m=GSD_M)
    building, paths, buildings = LANDCOVER.by_name("building").id, [], []
    for number, date in enumerate((scene, scene.later(seed))):
        pixels, labels = date.read()
        paths.append(folder / f"synthetic{seed}_{number}.tif")
        place = {"transform": Affine(GSD_M, 0, 500_000, 0, -GSD_M, 4_000_000), "crs": "EPSG:32611"}
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": SIDE, "width": SIDE}
        with rasterio.open(paths[-1], "w", **profile, **place) as raster:
            raster.write(pixels[:3])
            raster.descriptions = ("red", "green", "blue")
        buildings.append(labels == building)
    before, after = buildings
    reference = np.where(after & ~before, 1, np.where(before & ~after, 2, 0)).astype(np.uint8)
    return Case(f"synthetic{seed}", *paths, reference)


def score(cases: list[Case], way: Way, work: Path) -> dict[str, Counter[str]]:
    totals = {kind: Counter[str]() for kind in KINDS}
    for case in cases:
        codes = read(changed(case, way, work)).astype(int)
        is_change = (codes > 0) & (codes < 255) & (case.reference != 255)
        before, after = np.divmod(codes - 1, 15)
        building = building_of(way.model)
        add(totals["new"], case.reference == 1, is_change & (after == building))
        add(totals["removed"], case.reference == 2, is_change & (before == building))
    return totals


def changed(case: Case, way: Way, work: Path) -> Path:
    """The raster of transitions; what is segmented once is kept."""
    stem = f"{case.name}-{Path(way.model).name}"
    output = work / f"{stem}.tif"
    if way.by != "maps":
        told = {"dates": way.dates, "options": way.options, "overwrite": True}
        geoseg.change_files(case.before, case.after, output, model=way.model, **told)
        return output
    dates = [work / f"{stem}-{role}.tif" for role in ("before", "after")]
    for path, scene in zip(dates, (case.before, case.after), strict=True):
        geoseg.segment_file(scene, path, model=way.model)
    geoseg.change_files(*dates, work / f"{stem}-maps.tif", options=way.options, overwrite=True)
    return work / f"{stem}-maps.tif"


def building_of(model: str) -> int:
    """Index of the class among those of each date."""
    card = geoseg.load_model(model).card
    pair = PairClasses.of(card)
    return (card.legend if pair is None else pair.legend).names.index("building")


def add(counts: Counter[str], reference: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    counts["both"] += int((reference & found).sum())
    counts["reference"] += int(reference.sum())
    counts["pixels"] += int(found.sum())
    parts, number = label(reference)
    counts["parts"] += number
    counts["found"] += sum(found[parts == part].mean() >= ENOUGH for part in range(1, number + 1))
    ours, number = label(found)
    counts["ours"] += number
    counts["false"] += sum(reference[ours == part].mean() < ENOUGH for part in range(1, number + 1))


def told_way(way: Way) -> str:
    prior = f"{way.options.prior:g}" if way.by == "probabilities" else way.by
    return f"{Path(way.model).name} | {prior} | {way.options.min_area_m2:g}"


def told(counts: Counter[str]) -> str:
    precision, recall = (counts["both"] / max(1, counts[side]) for side in ("pixels", "reference"))
    f1 = 2 * counts["both"] / max(1, counts["pixels"] + counts["reference"])
    right, whole = 1 - counts["false"] / max(1, counts["ours"]), counts["found"] / max(1, counts["parts"])
    by_part = 2 * right * whole / (right + whole) if right + whole else 0.0
    return (
        f"{precision:.2f} | {recall:.2f} | {f1:.2f} | {counts['parts']} | {counts['found']} | {counts['false']} | "
        f"{right:.2f} | {by_part:.2f}"
    )


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as raster:
        values: NDArray[np.uint8] = raster.read(1)
    return values


if __name__ == "__main__":
    main()
