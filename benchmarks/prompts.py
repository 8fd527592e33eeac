"""Objects from clicks and boxes: mean IoU on places that prompt-rgb was not trained on, and how long they take.

    python benchmarks/prompts.py DATA [--model prompt-rgb] [--views 4] [--count 25] [--places held-out drones ...]

DATA holds `flair/`, `dubai/` and `oam_buildings/`. Each object is asked for by a click in its middle, by a box around
it, and by that click and four more, each in the middle of the worst mistake. `everything` is of zone B.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio

import geoseg
from geoseg.prompts.judge import HEADER, Scene, judge, rows
from geoseg.prompts.load import load_network
from geoseg.prompts.parts import LEAST
from geoseg.prompts.recipe import DUBAI_KINDS, FLAIR_KINDS, judged_dubai, judged_flair
from geoseg.prompts.views import seen_in

PLACES = ["held-out", "drones", "clicks", "everything"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="prompt-rgb")
    parser.add_argument("--views", type=int, default=4, help="of a chip, as in geoseg prompt")
    parser.add_argument("--count", type=int, default=25, help="objects of a kind and place")
    parser.add_argument("--places", nargs="+", default=PLACES[:3], help=f"of {', '.join(PLACES)}")
    args = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    if {"held-out", "drones"} & set(args.places):
        print(HEADER)
    if "held-out" in args.places:
        scores("FLAIR zone B", args, [judged_flair(args.data)], FLAIR_KINDS, 4 * LEAST)
        scores("Dubai tile 4", args, judged_dubai(args.data), DUBAI_KINDS, LEAST)
    if "drones" in args.places:
        drone = [Scene(path, mask_of(path)) for path in sorted((args.data / "oam_buildings").glob("*_rgb.tif"))]
        scores("drone mosaics", args, drone, {"building": (1,)}, 4 * LEAST)
    if "clicks" in args.places:
        clicks(args.data / "flair" / "zone_B_rgb.tif", args.model, args.views)
    if "everything" in args.places:
        everything(args.data / "flair" / "zone_B_rgb.tif", args.model)


def scores(
    place: str, args: argparse.Namespace, scenes: Sequence[Scene], kinds: Mapping[str, Sequence[int]], least_px: int
) -> None:
    """A row for each kind of object, and one for all."""
    found = judge(seen_in(load_network(args.model), args.views), scenes, kinds, count=args.count, least_px=least_px)
    print("\n".join(rows(place, found)), flush=True)


def mask_of(path: Path) -> np.ndarray:
    """1 within a building."""
    with rasterio.open(path.with_name(path.name.replace("_rgb", "_mask"))) as raster:
        return (raster.read(1) != 0).astype(np.uint8)


def everything(scene: Path, model: str) -> None:
    """Seconds, objects and memory of all that a lattice of points finds."""
    segmenter = geoseg.prompt(scene, model, cache_gb=0, views=1)
    segmenter.point(*segmenter.place.transform @ (100, 100), crs=None)  # libraries and network are loaded
    before, started = peak_mb(), time.perf_counter()
    found = segmenter.everything()
    seconds = time.perf_counter() - started
    print(
        f"{' x '.join(map(str, segmenter.place.shape))} px: {seconds:.0f} s, {len(found)} objects, {found.whole.sum()} "
        f"of them whole; memory at its peak {peak_mb():.0f} MB, of which {before:.0f} MB before"
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def clicks(scene: Path, model: str, views: int) -> None:
    """Seconds of opening, of clicks on chips that are new and that are known, from the point to the polygon."""
    with rasterio.open(scene) as raster:
        places = np.random.default_rng(0).uniform(0.1, 0.9, (20, 2)) * raster.shape
        points = [raster.transform @ (col, row) for row, col in places]
        cold = time.perf_counter()
        segmenter = geoseg.prompt(scene, model, cache_gb=0, views=views)
        print(f"\nopened in {time.perf_counter() - cold:.2f} s")
        told = {"first click on a chip": [], "second": [], "a point beside, which mends": []}
        for x, y in points:
            for name, ask in (
                ("first click on a chip", lambda x=x, y=y: segmenter.point(x, y, crs=None).best),
                ("second", lambda x=x, y=y: segmenter.point(x + 1, y, crs=None).best),
            ):
                told[name].append(seconds(ask))
            answer = segmenter.point(x, y, crs=None)
            told["a point beside, which mends"].append(
                seconds(lambda a=answer, x=x, y=y: a.refine(x + 5, y, positive=False, crs=None).best)
            )
        for name, values in told.items():
            print(f"{name}: median {np.median(values):.3f} s, longest {max(values):.3f} s")


def seconds(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
