"""Train the bundle `landcover-rgb`: `python -m geoseg.training.recipes.landcover_rgb --data DIR --out DIR`.

DIR holds `flair/` (IGN orthophotos at 0.2 m, 19 classes) and `dubai/` (MBRSC satellite images, about 0.7 m, 5 classes).
Zone B and tile 4 are held out. Synthetic scenes join the mix. What ships is then trained on, on all places:
`--start BUNDLE --all BUNDLE` keeps the scores and temperature of BUNDLE, as places that were trained on tell nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.legend import LANDCOVER
from geoseg.models import Architecture, TrainingData, load_model
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.synthetic import SyntheticScene, write_scene
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
from geoseg.training.samples import ArrayScene
from geoseg.training.train import Training

VEGETATION = len(LANDCOVER.classes)  # label code of a pixel known to be tree or low_vegetation, not which
CODES = {name: code for code, name in enumerate(LANDCOVER.names)} | {"vegetation": VEGETATION}
FLAIR = {
    "building": (1, 18),
    "paved": (2, 3),
    "bare": (4, 12),
    "tree": (6, 7, 16, 17),
    "low_vegetation": (8, 9, 10, 11),
    "water": (5, 13),
}
DUBAI = {"bare": (1,), "building": (2,), "paved": (3,), "vegetation": (4,), "water": (5,)}
HELD_OUT = {"zone_B": "flair B", "tile4": "dubai 4"}
DUBAI_GSD_M = 0.7
POOL_TO_M = 0.4  # finer scenes are seen at about this
NETWORK: dict[str, int | float | str | bool | list[int]] = {
    "encoder": "tu-resnet18",
    "depth": 4,
    "decoder_channels": [128, 64, 32],
}
LIMITATIONS = (
    "Trained for hours on two CPU cores, from two regions and synthetic scenes: outside southern France and the "
    "Gulf coast expect less than the scores. It takes cars and stacked goods for small buildings, parts of flat "
    "roofs for bare or paved ground, ponds under algae for vegetation, some dark roofs and deep shadows for water; "
    "dry grass may be called bare. On drone mosaics it misses most tin roofs."
)
BANDS = {"red": "1", "green": "2", "blue": "3"}
SIDE = 1792  # pixels of a synthetic scene
MIX = 0.5  # so that what stands in one region is seen beside what stands in the others
WEIGHTS = {"building": 2.0, "paved": 1.3, "low_vegetation": 0.8, "water": 0.8}
MADE_WEIGHT = 0.2  # so that of 40 scenes about a quarter of the samples comes
ALL = "train on the held-out places too; scores and temperature are those of this bundle, which was not"
IGN = TrainingData(name="FLAIR #1", license="Licence Ouverte 2.0", attribution="IGN, FLAIR #1 / BD ORTHO")
MBRSC = TrainingData(
    name="Semantic segmentation of aerial imagery, Dubai",
    license="CC0 as republished by its authors",
    attribution="Mohammed Bin Rashid Space Centre; Humans in the Loop",
)
MADE = TrainingData(name="geoseg.synthetic", license="Apache-2.0", attribution="geoseg")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", help="bundle whose weights to start from")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--loaders", type=int, default=1, help="loader processes")
    parser.add_argument("--synthetic", type=int, default=40, help="number of synthetic scenes in the mix")
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--all", metavar="BUNDLE", help=ALL)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    scenes = [*real_sources(args.data), *made_scenes(args.out / "synthetic", args.synthetic, weight=MADE_WEIGHT)]
    run = RunConfig(
        steps=args.steps, batch=args.batch, loaders=args.loaders, decay=0.35, learning_rate=1e-3, validation_chips=96
    )
    config = config_of(scenes, run, args.start, args.version)
    train(config, args.out / "run", judged=args.all, resume=args.resume)


def train(config: TrainConfig, out: Path, *, judged: str | None, resume: bool) -> None:
    """Train with the held-out places, or on all of them.

    Args:
        config: the training.
        out: folder of the training.
        judged: None, or the bundle whose scores and temperature are kept, as it was trained without the held-out
            places; these are then trained on, but for the few blocks by which the best weights are chosen.
        resume: go on from the last checkpoint there.
    """
    if judged is None:
        Training.of(config).run(out, resume=resume)
        return
    scenes = tuple(source.model_copy(update={"role": "train"}) for source in config.scenes)
    told = f"{config.description} Scores are those of a version that was trained without these places."
    split = SplitConfig(by="blocks", share=0.02)
    everywhere = config.model_copy(update={"scenes": scenes, "split": split, "description": told})
    Training.of(everywhere).run(out, resume=resume, scores_of=load_model(judged).card)


def config_of(scenes: list[LabelledSource], run: RunConfig, start: str | None, version: str) -> TrainConfig:
    """The training that the bundle comes from."""
    made = f"U-Net on resnet18, from {Path(start).name if start else 'scratch'}"
    return TrainConfig(
        name="landcover-rgb",
        version=version,
        description=f"Land cover from RGB imagery of 0.05 to 1.1 m. {made}.",
        license="Apache-2.0",
        limitations=LIMITATIONS,
        pool_to_m=POOL_TO_M,
        scenes=tuple(scenes),
        split=SplitConfig(by="scenes"),
        network=Architecture(name="unet", args=NETWORK),
        start=StartConfig(weights=start),
        loss=LossConfig(class_weights=WEIGHTS),
        augment=AugmentConfig(scale=1.4, shadow=0.4, mix=MIX),
        run=run,
    )


def real_sources(data: Path) -> list[LabelledSource]:
    """Aerial zones and satellite images, with what their labels are called here."""
    flair = sorted((data / "flair").glob("zone_*_rgb.tif"))
    dubai = sorted((data / "dubai").glob("tile*.jpg"))
    return [
        *(source_of(path, path.with_name(path.name.replace("_rgb", "_labels")), FLAIR, IGN) for path in flair),
        *(
            source_of(path, path.with_name(f"{path.stem}_label.png"), DUBAI, MBRSC).model_copy(
                update={"gsd_m": DUBAI_GSD_M}
            )
            for path in dubai
        ),
    ]


def source_of(scene: Path, labels: Path, ids: Mapping[str, tuple[int, ...]], data: TrainingData) -> LabelledSource:
    """A scene whose label ids stand for classes or groups; all others do not count."""
    names = {str(code): name for name, codes in ids.items() for code in codes}
    place = next((place for part, place in HELD_OUT.items() if part in scene.name), None)
    return LabelledSource(
        scene=str(scene),
        labels=str(labels),
        map=names,
        ignore=tuple(str(code) for code in range(256) if str(code) not in names),
        role="validate" if place else "train",
        place=place,
        bands=BANDS,
        data=data,
    )


def made_scenes(folder: Path, count: int, *, weight: float = 1.0) -> list[LabelledSource]:
    """Synthetic scenes, written once."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for seed in range(1, count + 1):
        scene, labels = folder / f"{seed}.tif", folder / f"{seed}_labels.tif"
        if not labels.exists():
            write_scene(SyntheticScene((SIDE, SIDE), seed=seed, gsd_m=0.25 + 0.05 * (seed % 6)), scene, labels=labels)
        sources.append(LabelledSource(scene=str(scene), labels=str(labels), data=MADE, weight=weight))
    return sources


def flair_scene(path: Path) -> ArrayScene:
    pixels = _read(path)
    labels = _read(path.with_name(path.name.replace("_rgb", "_labels")))[0]
    return ArrayScene(pixels, code_table(FLAIR)[labels], 0.2)


def dubai_scene(path: Path) -> ArrayScene:
    labels = _read(path.with_name(f"{path.stem}_label.png"))[0]
    return ArrayScene(_read(path), code_table(DUBAI)[labels], DUBAI_GSD_M)


def code_table(ids: Mapping[str, tuple[int, ...]]) -> NDArray[np.uint8]:
    """Lookup from a source's label ids to our codes."""
    table = np.full(256, IGNORE, np.uint8)
    for name, members in ids.items():
        table[list(members)] = CODES[name]
    return table


def _read(path: Path) -> NDArray[np.uint8]:
    with ignore_not_georeferenced(), rasterio.open(path) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()
    return pixels


if __name__ == "__main__":
    main()
