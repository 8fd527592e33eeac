"""Does what geoseg has for few labels help? `python benchmarks/few_labels.py DATA --out DIR [--steps N] [--seeds N]`

DATA holds `dubai/` (MBRSC satellite images, 5 classes). Windows drawn by a seed, 5 % of the labelled ground of tiles
1, 3, 6 and 8, are the only labels: four fifths to train on, one fifth to choose the weights that are kept. Three ways
to use them, with the same network, steps and draws:

    labels        those windows alone
    consistency   and all of the four tiles without labels (`unlabelled` in the config)
    pseudo        and what `geoseg pseudo-label` makes of the four tiles with the first way's model

Each is judged on tile 4, which nothing has seen. Trainings that are in DIR already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scipy.stats import t
from shapely.geometry import box

import geoseg
from geoseg.legend import Legend, LegendClass
from geoseg.training.config import LabelledSource, TrainConfig
from geoseg.training.losses import IGNORE
from geoseg.training.publish import judge
from geoseg.training.scenes import open_scene_of

TRAIN, TEST = (1, 3, 6, 8), 4
GSD_M, SIDE, SHARE, HELD = 0.7, 256, 0.05, 0.2
CRS = "EPSG:32640"  # the images have none; each is put on a place of its own, so that windows can be polygons
NAMES = ("land", "building", "road", "vegetation", "water")
COLORS = ("#dfc27d", "#d7301f", "#8c8c8c", "#1b7837", "#2b8cbe")
CLASSES = tuple(LegendClass(id=i, name=n, color=c) for i, (n, c) in enumerate(zip(NAMES, COLORS, strict=True), 1))
REPEATED = 4  # scenes are drawn by labelled area: so that hand-made labels are not lost among pseudo-labels
WAYS = ("labels", "consistency", "pseudo")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    scenes = prepared(given.data / "dubai", given.out / "scenes")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(given.seeds):
        for way in WAYS:
            folder = given.out / f"{way}-{seed}-{given.steps}"
            found[way].append(result(scenes, folder, way, seed, given.steps))
            print(table(found, given.steps), flush=True)


def prepared(folder: Path, out: Path) -> list[Path]:
    """The images as tiled GeoTIFFs side by side, each with its labels (`_labels.tif`, 0 where unlabelled)."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, image in enumerate(sorted(folder.glob("tile*_???.jpg"))):
        place = Affine(GSD_M, 0, 300_000 + 4_000 * number, 0, -GSD_M, 2_800_000)
        written.append(out / f"{image.stem}.tif")
        for source, target in (
            (image, written[-1]),
            (image.with_name(f"{image.stem}_label.png"), labels_of(written[-1])),
        ):
            if not target.exists():
                copy(source, target, place)
    return written


def copy(source: Path, target: Path, place: Affine) -> None:
    with warnings.catch_warnings(), rasterio.open(source) as given:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        pixels = given.read()
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(pixels), "height": pixels.shape[1]}
    profile |= {"width": pixels.shape[2], "transform": place, "crs": CRS, "tiled": True, "compress": "deflate"}
    if len(pixels) == 1:
        profile["nodata"] = 0
    with rasterio.open(target, "w", blockxsize=256, blockysize=256, **profile) as written:
        written.write(pixels)


def labels_of(scene: Path) -> Path:
    return scene.with_name(f"{scene.stem}_labels.tif")


def tile_of(scene: Path) -> int:
    return int(scene.stem[4])


def windows(scenes: Sequence[Path], seed: int) -> tuple[list[Any], list[Any]]:
    """Boxes to train on, and to choose weights with, in ground coordinates."""
    places, labelled = [], 0
    for scene in scenes:
        with rasterio.open(labels_of(scene)) as raster:
            known = raster.read(1) > 0
            labelled += int(known.sum())
            for row in range(0, raster.height - SIDE + 1, SIDE):
                for col in range(0, raster.width - SIDE + 1, SIDE):
                    share = known[row : row + SIDE, col : col + SIDE].mean()
                    if share > 0.5:
                        left, top = raster.transform @ (col, row)
                        places.append((share, box(left, top - SIDE * GSD_M, left + SIDE * GSD_M, top)))
    count = round(SHARE * labelled / SIDE**2)
    drawn = [places[i][1] for i in np.random.default_rng(seed).permutation(len(places))[:count]]
    held = round(HELD * count)
    return drawn[held:], drawn[:held]


def config(scenes: Sequence[Path], folder: Path, way: str, seed: int, steps: int) -> TrainConfig:
    """The training of one way; its windows and pseudo-labels lie in the folder."""
    train, validate = windows(scenes, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, boxes in (("labelled", train + validate), ("held", validate)):
        gpd.GeoDataFrame(geometry=boxes, crs=CRS).to_file(folder / f"{name}.gpkg")
    with_labels = [scene for scene in scenes if _touches(scene, train + validate)]
    labelled = [source(scene, labels_of(scene), aoi=str(folder / "labelled.gpkg")) for scene in with_labels]
    stated: dict[str, Any] = {
        "name": way,
        "classes": [entry.model_dump() for entry in CLASSES],
        "scenes": labelled,
        "split": {"by": "polygons", "polygons": str(folder / "held.gpkg"), "buffer_px": 0},
        "network": {"name": "unet", "args": {"encoder": "tu-resnet18", "depth": 3, "decoder_channels": [64, 32, 16]}},
        "run": {"steps": steps, "batch": 4, "chip": 128, "average": 0.99, "warmup": 50, "seed": seed, "loaders": 0}
        | {"validate_every": max(1, steps // 6), "validation_chips": 48, "precision": "float32", "device": "cpu"},
    }
    if way == "consistency":
        stated["unlabelled"] = {"scenes": [{"scene": str(scene)} for scene in scenes], "ramp_steps": max(1, steps // 3)}
    if way == "pseudo":
        made = pseudo_labels(scenes, folder, folder.with_name(folder.name.replace("pseudo", "labels")) / "labels")
        extra = [
            source(scene, labels, **({"ignore_regions": str(folder / "labelled.gpkg")} if scene in with_labels else {}))
            for scene, labels in zip(scenes, made, strict=True)
            if labels is not None
        ]
        stated["scenes"] = labelled * REPEATED + extra
    return TrainConfig.model_validate(stated)


def source(scene: Path, labels: Path, **more: str) -> dict[str, str]:
    return {"scene": str(scene), "labels": str(labels), **more}


def pseudo_labels(scenes: Sequence[Path], folder: Path, model: Path) -> Iterator[Path | None]:
    """Of each scene; None where the model is sure of nothing."""
    for scene in scenes:
        output = folder / f"{scene.stem}-pseudo.tif"
        made = geoseg.pseudo_label(scene, output, model=model)
        yield output if any(made.kept.kept) else None


def _touches(scene: Path, boxes: Sequence[Any]) -> bool:
    with rasterio.open(scene) as raster:
        here = box(*raster.bounds)
    return any(here.intersection(one).area > 1 for one in boxes)


def result(scenes: Sequence[Path], folder: Path, way: str, seed: int, steps: int) -> float:
    """Mean IoU on tile 4."""
    kept = folder / "result.json"
    if not kept.exists():
        train = [scene for scene in scenes if tile_of(scene) in TRAIN]
        trained = geoseg.train(config(train, folder, way, seed, steps), folder, resume=True)
        legend = Legend(classes=CLASSES)
        held = [
            open_scene_of(
                LabelledSource(scene=str(scene), labels=str(labels_of(scene))), ("red", "green", "blue"), legend
            )
            for scene in scenes
            if tile_of(scene) == TEST
        ]
        scores, _ = judge(trained.model, held, NAMES, coarse)
        kept.write_text(json.dumps(scores))
    scores = json.loads(kept.read_text())
    print(folder.name, scores, flush=True)
    return float(np.mean([scores[name] for name in NAMES]))


def coarse(codes: NDArray[np.integer]) -> NDArray[np.int16]:
    return np.where(np.asarray(codes) == IGNORE, -1, codes).astype(np.int16)


def table(found: dict[str, list[float]], steps: int) -> str:
    """Mean IoU with 95 % t intervals over seeds; of the differences from labels alone too, which are taken by seed."""
    lines = [f"| {steps} steps | mean IoU on tile 4 | by seed | over labels alone |", "|---|---|---|---|"]
    for way, values in found.items():
        if values:
            by_seed = ", ".join(f"{value:.3f}" for value in values)
            gains = np.subtract(values, found["labels"][: len(values)])
            lines.append(f"| {way} | {interval(values)} | {by_seed} | {interval(gains) if way != 'labels' else ''} |")
    return "\n".join(lines)


def interval(values: Sequence[float] | NDArray[np.float64]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{np.mean(values):.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
