"""Train a Siamese network on pairs: `python -m geoseg.training.recipes.building_change --data DIR --out DIR`.

DIR holds `flair/` and `dubai/`, as for `landcover_rgb`, and `california/`. Three kinds of pairs, 0.5 to 0.7 m: a
synthetic scene and the same place later; a real scene twice, the second time in other colors and up to two pixels
beside; and a real place on two dates (NAIP), whose buildings are those that `landcover-rgb` is sure of on both. Some
buildings of the real ones are hidden on either date by ground nearby, others pasted onto ground. Zone B, tile 4, the
last synthetic place and the sites of two cities are held out. Run again with the same --out and --resume to go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.catalog import open_scene
from geoseg.inference.lazy import segment
from geoseg.legend import LANDCOVER, LegendClass
from geoseg.models import Architecture, TrainingData, load_model
from geoseg.models.pairs import both_dates
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.synthetic import SyntheticScene
from geoseg.training.config import (
    AugmentConfig,
    LabelledSource,
    LossConfig,
    RunConfig,
    SplitConfig,
    StartConfig,
    TrainConfig,
)
from geoseg.training.losses import IGNORE
from geoseg.training.recipes.landcover_rgb import (
    CODES,
    HELD_OUT,
    NETWORK,
    dubai_scene,
    flair_scene,
)
from geoseg.training.samples import ArrayScene
from geoseg.training.train import Training

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Slices = tuple[slice, slice]

GSD_M = 0.6
SIDE = 1024  # pixels of a synthetic scene
CHANGED = 0.15  # of the buildings, hidden on either date
MARGIN = 3  # pixels around a building that go with it: eaves, and the shadow at its foot
REACH = 80  # pixels within which ground is looked for
TRIES = 12
REPEATED = 3  # times that a pair of real dates is edited
SURE, SURE_NOT = 0.6, 0.25  # probability of a building, of both dates on average
SHIFT = 2.0  # pixels between the dates, at most
HELD_OUT_CITIES = ("palm_springs", "riverside")  # that is where the masks drawn by hand are
BANDS = {"red": "1", "green": "2", "blue": "3"}
NAMES = ("other", "building", "other to building", "building to other")
COLORS = ("#dedede", "#8c8c8c", "#d7301f", "#2b8cbe")
CLASSES = tuple(LegendClass(id=i, name=n, color=c) for i, (n, c) in enumerate(zip(NAMES, COLORS, strict=True), 1))
UNKNOWN = 0
LIMITS = (
    "Trained for less than an hour on two CPU cores. Buildings hidden or pasted by a program teach it most of what it "
    "knows: real building sites, scaffolds and rubble it has hardly seen. Imagery of about 0.6 m, taken from above."
)
CREDITS = {
    "synthetic": TrainingData(name="geoseg.synthetic", license="Apache-2.0", attribution="geoseg"),
    "zone": TrainingData(name="FLAIR #1", license="Licence Ouverte 2.0", attribution="IGN, FLAIR #1 / BD ORTHO"),
    "tile": TrainingData(
        name="Semantic segmentation of aerial imagery, Dubai",
        license="CC0 as republished by its authors",
        attribution="Mohammed Bin Rashid Space Centre; Humans in the Loop",
    ),
    "naip": TrainingData(name="NAIP, eight Californian places", license="public domain", attribution="USDA"),
}


class Pair(NamedTuple):
    """(3, height, width) of each date, and ids of CLASSES."""

    before: Bytes
    after: Bytes
    codes: Bytes


def main() -> None:
    """Read the command line, make the pairs, and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="landcover-rgb", help="bundle whose encoder to start from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--synthetic", type=int, default=12, help="number of synthetic places")
    parser.add_argument("--merge", choices=("concat", "difference"), default="concat")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    sources = write_pairs(args.data, args.out / "pairs", args.synthetic)
    config = config_of(sources, args.start, args.steps, args.merge)
    Training.of(config).run(args.out / "run", resume=args.resume)


def config_of(scenes: list[LabelledSource], start: str, steps: int, merge: str) -> TrainConfig:
    """The training of the bundle."""
    return TrainConfig(
        name="building-change",
        description="New and removed buildings between two dates of RGB imagery of about 0.6 m, seen at once.",
        license="Apache-2.0",
        limitations=LIMITS,
        classes=CLASSES,
        bands=tuple(both_dates(list(BANDS))),
        scenes=tuple(scenes),
        split=SplitConfig(by="scenes"),
        network=Architecture(name="siamese-unet", args=NETWORK | {"merge": merge}),
        start=StartConfig(weights=start),
        loss=LossConfig(class_weights={"building": 1.5, "other to building": 3.0, "building to other": 3.0}),
        augment=AugmentConfig(scale=1.3),
        run=RunConfig(steps=steps, chip=192, learning_rate=5e-4, validate_every=250, validation_chips=48, balance=0.6),
    )


def write_pairs(data: Path, folder: Path, synthetic: int) -> list[LabelledSource]:
    """All pairs as GeoTIFFs of six bands, with labels; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (name, make) in enumerate(_places(data, synthetic)):
        scene, labels = folder / f"{name}.tif", folder / f"{name}_labels.tif"
        if not labels.exists():
            rng = np.random.default_rng(number)
            pair = make(rng)
            _write(scene, np.concatenate([pair.before, pair.after]))
            _write(labels, pair.codes[None])
        held = name == f"synthetic{synthetic}" or any(part in name for part in (*HELD_OUT, *HELD_OUT_CITIES))
        found.append(
            LabelledSource(
                scene=str(scene),
                labels=str(labels),
                map={str(entry.id): entry.name for entry in CLASSES},
                ignore=(str(UNKNOWN),),
                bands={name: str(i) for i, name in enumerate(both_dates(list(BANDS)), 1)},
                role="validate" if held else "train",
                gsd_m=GSD_M,
                data=_credit(name),
            )
        )
    return found


def _credit(name: str) -> TrainingData:
    return CREDITS["synthetic" if name.startswith("synthetic") else name[:4] if name[:4] in CREDITS else "naip"]


def _places(data: Path, synthetic: int) -> Iterator[tuple[str, Callable[[np.random.Generator], Pair]]]:
    for seed in range(1, synthetic + 1):
        yield f"synthetic{seed}", partial(synthetic_pair, seed)
    for path in sorted((data / "flair").glob("zone_*_rgb.tif")):
        yield path.stem, lambda rng, path=path: edited_scene(flair_scene(path), rng)  # type: ignore[misc]
    for path in sorted((data / "dubai").glob("tile*.jpg")):
        yield path.stem, lambda rng, path=path: edited_scene(dubai_scene(path), rng)  # type: ignore[misc]
    for site in sorted({path.stem[:-5] for path in (data / "california").glob("*.tif")}):
        dates = sorted((data / "california").glob(f"{site}_????.tif"))
        for number, years in enumerate([*permutations(dates, 2)] * REPEATED):
            yield f"{site}_{number}", partial(real_pair, years)


def synthetic_pair(seed: int, rng: np.random.Generator) -> Pair:
    """A synthetic place on two dates, either of which may be the first."""
    scene = SyntheticScene((SIDE, SIDE), seed=seed, gsd_m=GSD_M)
    dates = [scene.read(), scene.later(seed).read()]
    (one, before), (other, after) = dates if rng.random() < 0.5 else dates[::-1]
    building = LANDCOVER.by_name("building").id
    return Pair(one[:3], seen_later(other[:3], rng), codes_of(before == building, after == building))


def real_pair(paths: tuple[Path, Path], rng: np.random.Generator) -> Pair:
    """A real place on two dates; what a model does not call the same on both, and is sure of, is not known."""
    seen = [_read_rgb(path) for path in paths]
    chance = np.mean([building_probability(path) for path in paths], axis=0)
    labels = np.full(chance.shape, IGNORE, np.uint8)
    labels[chance < SURE_NOT] = CODES["bare"]
    labels[chance > SURE] = CODES["building"]
    return edited(seen, labels, rng, maybe=labels == IGNORE)


@cache
def building_probability(path: Path) -> NDArray[np.float32]:
    """(height, width) by the bundle that ships."""
    model = load_model("landcover-rgb")
    cover = segment(open_scene(path, bands=BANDS), model, probabilities=True)
    found: NDArray[np.float32] = cover.probabilities.sel({"class": "building"}).to_numpy()
    return found


def edited_scene(scene: ArrayScene, rng: np.random.Generator) -> Pair:
    """A real scene twice, edited; the second time in other light."""
    pool = max(1, round(GSD_M / scene.gsd_m))
    rows, cols = (length // pool * pool for length in scene.labels.shape)
    pixels = scene.pixels[:, :rows, :cols].reshape(len(scene.pixels), rows // pool, pool, cols // pool, pool)
    seen = pixels.mean((2, 4)).round().astype(np.uint8)
    labels = scene.labels[pool // 2 : rows : pool, pool // 2 : cols : pool]
    pair = edited([seen, seen], labels, rng)
    return pair._replace(after=seen_later(pair.after, rng))


def edited(seen: list[Bytes], labels: Bytes, rng: np.random.Generator, maybe: Bools | None = None) -> Pair:
    """Two dates, each with some of the buildings hidden, and some of them pasted elsewhere.

    Args:
        seen: (3, height, width) of each date.
        labels: (height, width) label codes of both.
        rng: of what is edited.
        maybe: pixels that may belong to the building that they touch, beside those that do.
    """
    dates = [pixels.copy() for pixels in seen]
    sure = labels == CODES["building"]
    buildings, unknown = [sure.copy(), sure.copy()], labels == IGNORE
    parts, _ = ndimage.label(sure if maybe is None else sure | maybe)
    around = ndimage.binary_dilation(sure | unknown, iterations=MARGIN)
    for part, box in enumerate(ndimage.find_objects(parts), 1):
        window = _padded(box, labels.shape)
        own = parts[window] == part
        wide, core = ndimage.binary_dilation(own, iterations=MARGIN), own & sure[window]
        if rng.random() > 2 * CHANGED or wide.sum() > labels.size / 50 or not core.any():
            continue
        elsewhere = _free(wide, window, around, rng)
        if elsewhere is None:
            continue
        soft = np.minimum(ndimage.uniform_filter(wide.astype(np.float32), 3), 1)
        date = int(rng.integers(2))
        if rng.random() < 0.7:
            _blend(dates[date], window, seen[date][(slice(None), *elsewhere)], soft)
            buildings[date][window] &= ~own
        else:
            _blend(dates[date], elsewhere, seen[date][(slice(None), *window)], soft)
            buildings[date][elsewhere] |= core
            around[elsewhere] |= wide
            unknown[elsewhere] |= own & ~core
    codes = codes_of(*buildings)
    codes[unknown] = UNKNOWN
    return Pair(dates[0], dates[1], codes)


def seen_later(pixels: Bytes, rng: np.random.Generator) -> Bytes:
    """The same in other light, by another camera, a little beside."""
    moved = ndimage.shift(pixels.astype(np.float32), (0, *rng.uniform(-SHIFT, SHIFT, 2)), order=1, mode="nearest")
    if rng.random() < 0.5:
        moved = ndimage.gaussian_filter(moved, (0, *[rng.uniform(0.3, 0.9)] * 2))
    gain = np.exp(rng.uniform(-0.25, 0.25) + rng.uniform(-0.1, 0.1, (3, 1, 1)))
    lit = 255 * (np.clip(moved / 255, 1e-3, 1) ** np.exp(rng.uniform(-0.3, 0.3))) * gain
    noise = rng.normal(0, rng.uniform(0, 5), lit.shape)
    seen: Bytes = np.clip(lit + noise, 1, 255).round().astype(np.uint8)
    return seen


def codes_of(before: Bools, after: Bools) -> Bytes:
    """Ids of CLASSES."""
    table = np.array([[1, 3], [4, 2]], np.uint8)
    codes: Bytes = table[before.astype(np.intp), after.astype(np.intp)]
    return codes


def _padded(box: tuple[slice, slice], shape: tuple[int, ...]) -> Slices:
    rows, cols = (
        slice(max(0, side.start - MARGIN), min(length, side.stop + MARGIN))
        for side, length in zip(box, shape, strict=True)
    )
    return rows, cols


def _free(wide: Bools, window: Slices, taken: Bools, rng: np.random.Generator) -> Slices | None:
    """A place nearby of the same shape where nothing is in the way; None where none was found."""
    for _ in range(TRIES):
        row, col = (int(side.start + rng.integers(-REACH, REACH + 1)) for side in window)
        place = slice(row, row + wide.shape[0]), slice(col, col + wide.shape[1])
        inside = row >= 0 and col >= 0 and place[0].stop <= taken.shape[0] and place[1].stop <= taken.shape[1]
        if inside and not (taken[place] & wide).any():
            return place
    return None


def _blend(pixels: Bytes, place: Slices, other: Bytes, soft: NDArray[np.float32]) -> None:
    own = pixels[(slice(None), *place)]
    own[:] = (own * (1 - soft) + other * soft).round()


def _read_rgb(path: Path) -> Bytes:
    with rasterio.open(path) as source:
        pixels: Bytes = source.read((1, 2, 3))
    return pixels


def _write(path: Path, bands: Bytes) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "tiled": True, "compress": "deflate"}
    height, width = bands.shape[1:]
    new = path.with_suffix(".new.tif")
    with (
        ignore_not_georeferenced(),
        rasterio.open(new, "w", height=height, width=width, transform=Affine.scale(GSD_M, -GSD_M), **profile) as out,
    ):
        out.write(bands)
    new.replace(path)


if __name__ == "__main__":
    main()
