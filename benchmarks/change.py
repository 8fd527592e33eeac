"""New and removed buildings between two dates, against masks drawn by hand.

    python benchmarks/change.py DIR [--model landcover-rgb] [--prior 0.2 ...] [--min-area 0 ...]

DIR holds SITE_2016.tif and SITE_2020.tif (NAIP, 0.6 m) and change_2016_2020/SITE_building_change.tif: 0 none, 1 new,
2 removed, 255 ignore. A part of the reference is found where 30 % of it is; a part of ours is false where less than
30 % of it is in the reference. Parts are 4-connected.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import label

import geoseg
from geoseg.legend import LANDCOVER

ENOUGH = 0.3
BUILDING = LANDCOVER.names.index("building")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="landcover-rgb")
    parser.add_argument("--prior", type=float, nargs="+", default=[0.5, 0.2, 0.05])
    parser.add_argument("--min-area", type=float, nargs="+", default=[0.0, 40.0])
    args = parser.parse_args()
    print("| prior | least m² | kind | pixels: precision | recall | F1 | parts | found | false |\n|" + "---|" * 9)
    with TemporaryDirectory() as work:
        for prior in args.prior:
            for least in args.min_area:
                options = geoseg.ChangeOptions(prior=prior, min_area_m2=least)
                for kind, counts in score(args.folder, args.model, options, Path(work)).items():
                    print(f"| {prior} | {least:g} | {kind} | {told(counts)} |", flush=True)


def score(folder: Path, model: str, options: geoseg.ChangeOptions, work: Path) -> dict[str, Counter[str]]:
    totals = {"new": Counter[str](), "removed": Counter[str]()}
    for mask in sorted(folder.glob("change_2016_2020/*_building_change.tif")):
        site = mask.name.removesuffix("_building_change.tif")
        dates = [folder / f"{site}_{year}.tif" for year in (2016, 2020)]
        output = work / f"{site}.tif"
        geoseg.change_files(*dates, output, model=model, options=options, overwrite=True)
        reference, codes = read(mask), read(output).astype(int)
        changed = (codes > 0) & (codes < 255) & (reference != 255)
        before, after = np.divmod(codes - 1, 15)
        add(totals["new"], reference == 1, changed & (after == BUILDING))
        add(totals["removed"], reference == 2, changed & (before == BUILDING))
    return totals


def add(counts: Counter[str], reference: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    counts["both"] += int((reference & found).sum())
    counts["reference"] += int(reference.sum())
    counts["ours"] += int(found.sum())
    parts, number = label(reference)
    counts["parts"] += number
    counts["found"] += sum(found[parts == part].mean() >= ENOUGH for part in range(1, number + 1))
    ours, number = label(found)
    counts["false"] += sum(reference[ours == part].mean() < ENOUGH for part in range(1, number + 1))


def told(counts: Counter[str]) -> str:
    precision, recall = (counts["both"] / max(1, counts[side]) for side in ("ours", "reference"))
    f1 = 2 * counts["both"] / max(1, counts["ours"] + counts["reference"])
    return f"{precision:.2f} | {recall:.2f} | {f1:.2f} | {counts['parts']} | {counts['found']} | {counts['false']}"


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as raster:
        values: NDArray[np.uint8] = raster.read(1)
    return values


if __name__ == "__main__":
    main()
