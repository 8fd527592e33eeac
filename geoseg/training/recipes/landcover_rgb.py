"""Train the bundle `landcover-rgb`: `python -m geoseg.training.recipes.landcover_rgb --data DIR --out DIR`.

DIR holds `flair/` (IGN orthophotos at 0.2 m, 19 classes) and `dubai/` (MBRSC satellite images, about 0.7 m, 5 classes).
Zone B and tile 4 are held out. Synthetic scenes join the mix. Run again with the same --out to go on; the bundle is
`landcover-rgb/` in it. What ships is then trained on, on all places: `--init BUNDLE --all` keeps the scores and the
temperature of BUNDLE, as places that were trained on tell nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from geoseg.grid import Window
from geoseg.inference.predictor import Backend
from geoseg.legend import LANDCOVER
from geoseg.models import Architecture, CardBand, Model, ModelCard, TrainingData, build_network, load_model, save_model
from geoseg.models.pooled import pool_factor, pooled
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.synthetic import SyntheticScene
from geoseg.training.augment import Augmentation
from geoseg.training.evaluate import Confusion
from geoseg.training.losses import IGNORE, PartialCrossEntropy, SoftDice
from geoseg.training.publish import publish
from geoseg.training.samples import ArrayScene, Samples, Source
from geoseg.training.task import Schedule, SegmentationTask

VEGETATION = len(LANDCOVER.classes)  # label code of a pixel known to be tree or low_vegetation, not which
CODES = {name: code for code, name in enumerate(LANDCOVER.names)} | {"vegetation": VEGETATION}
MEMBERS = [(0,), (1,), (2,), (3,), (4,), (5,), (3, 4)]
CODE_WEIGHTS = [2.0, 1.3, 1.0, 1.0, 0.8, 0.8, 1.0]
FLAIR = {
    "building": (1, 18),
    "paved": (2, 3),
    "bare": (4, 12),
    "tree": (6, 7, 16, 17),
    "low_vegetation": (8, 9, 10, 11),
    "water": (5, 13),
}
DUBAI = {"bare": (1,), "building": (2,), "paved": (3,), "vegetation": (4,), "water": (5,)}
HELD_OUT = ("zone_B", "tile4")
DUBAI_GSD_M = 0.7
POOL_TO_M = 0.4  # finer scenes are seen at about this
COARSE = ("building", "paved", "bare", "vegetation", "water")
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
MEAN, STD = [0.44, 0.44, 0.42], [0.23, 0.21, 0.21]  # over all training pixels, rounded


def main() -> None:
    """Read the command line, train, measure, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chip", type=int, default=256)
    parser.add_argument("--synthetic", type=int, default=40, help="number of synthetic scenes in the mix")
    parser.add_argument("--loaders", type=int, default=1, help="loader processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--init", help="bundle of the same architecture whose weights to start from")
    parser.add_argument("--all", action="store_true", help="train on the held-out places too; needs --init")
    args = parser.parse_args()
    if args.all and not args.init:
        parser.error("--all needs --init: scores are those of a bundle that was trained without the held-out places")
    seed_everything(args.seed)
    last = args.out / "last.ckpt"
    first = torch.load(last, weights_only=False)["global_step"] * args.batch if last.exists() else 0
    scenes = sources(args.data, args.synthetic, everywhere=args.all)
    samples = Samples(scenes, args.chip, args.steps * args.batch, args.seed, Augmentation(), balance=0.3, first=first)
    loader = DataLoader(samples, args.batch, num_workers=args.loaders, persistent_workers=args.loaders > 0)
    task = new_task(Schedule(args.steps))
    if args.init:
        for network in (task.network, task.average.module):
            network.load_state_dict(load_model(args.init).network.state_dict())
    trainer = Trainer(
        max_steps=args.steps,
        max_epochs=1,
        precision="bf16-mixed" if Backend.resolve(engine="torch").precision == "bfloat16" else "32-true",
        gradient_clip_val=1.0,
        logger=CSVLogger(args.out, name="log"),
        callbacks=[
            ModelCheckpoint(
                args.out, filename="step", every_n_train_steps=100, save_last=True, enable_version_counter=False
            ),
            HeldOut(held_out(args.data), card(args.version, 0, args.synthetic, args.init, everywhere=args.all)),
        ],
        enable_progress_bar=False,
        log_every_n_steps=20,
    )
    trainer.fit(task, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    trained = Model(
        task.average.module.cpu().eval(),
        card(args.version, trainer.global_step, args.synthetic, args.init, everywhere=args.all),
    )
    folder = args.out / "landcover-rgb"
    made = publish(trained, folder, places=held_out(args.data), names=COARSE, coarse=coarse)
    if args.all:
        judged = load_model(args.init).card
        kept = {name: getattr(judged, name) for name in ("scores", "temperature", "calibration")}
        save_model(Model(made.network, made.card.model_copy(update=kept)), folder)


def card(version: str, steps: int, synthetic: int, init: str | None, *, everywhere: bool) -> ModelCard:
    """What is known of the bundle before it is measured."""
    first = load_model(init).card if init else None
    start = f"{first.name} {first.version}" if first else "scratch"
    zones, tiles = ("A, B, C, E", "1, 3, 4, 6, 8") if everywhere else ("A, C, E", "1, 3, 6, 8")
    judged = f" Scores are those of {start}, which was trained without these places." if everywhere else ""
    told = f"Land cover from RGB imagery of 0.05 to 1.2 m. U-Net on resnet18, {steps:,} steps from {start}.{judged}"
    names = ("red", "green", "blue")
    return ModelCard(
        name="landcover-rgb",
        version=version,
        description=told,
        license="Apache-2.0",
        architecture=Architecture(name="unet", args=NETWORK),
        scales={"uint8": 1 / 255},
        bands=tuple(CardBand(name=n, mean=m, std=s) for n, m, s in zip(names, MEAN, STD, strict=True)),
        legend=LANDCOVER,
        gsd_m=0.4,
        gsd_range_m=(0.05, 1.2),
        pool_to_m=POOL_TO_M,
        output_stride=16,
        receptive_field_px=0,
        halo_px=0,
        chip_px=1024,
        position_independent=True,
        training_data=(
            TrainingData(
                name=f"FLAIR #1, zones {zones}",
                license="Licence Ouverte 2.0",
                attribution="IGN, FLAIR #1 / BD ORTHO",
            ),
            TrainingData(
                name=f"Semantic segmentation of aerial imagery, Dubai, tiles {tiles}",
                license="CC0 as republished by its authors",
                attribution="Mohammed Bin Rashid Space Centre; Humans in the Loop",
            ),
            TrainingData(name=f"geoseg.synthetic, {synthetic} scenes", license="Apache-2.0", attribution="geoseg"),
        ),
        limitations=LIMITATIONS,
    )


def new_task(schedule: Schedule) -> SegmentationTask:
    """The network that ships, with its losses."""
    network = build_network("unet", bands=3, classes=len(LANDCOVER.classes), args=NETWORK)
    network = network.train().to(memory_format=torch.channels_last)
    classes = len(LANDCOVER.classes)
    losses = [(1.0, PartialCrossEntropy(MEMBERS, classes, CODE_WEIGHTS)), (0.5, SoftDice(classes))]
    return SegmentationTask(network, losses, schedule, mean=MEAN, std=STD)


def sources(data: Path, synthetic: int, *, everywhere: bool) -> list[Source]:
    """Training scenes: all, or all but the held-out places."""
    flair = [flair_scene(p) for p in sorted((data / "flair").glob("zone_*_rgb.tif")) if everywhere or not _is_out(p)]
    dubai = [dubai_scene(p) for p in sorted((data / "dubai").glob("tile*.jpg")) if everywhere or not _is_out(p)]
    made = [synthetic_scene(seed) for seed in range(1, synthetic + 1)]
    return [
        Source(flair, 0.48, (0.3, 0.8)),
        Source(dubai, 0.26, (0.5, 1.0)),
        *([Source(made, 0.26, (0.3, 0.9))] if made else []),
    ]


def held_out(data: Path) -> dict[str, list[ArrayScene]]:
    """Scenes to report on, whole, by place."""
    return {
        "flair B": [flair_scene(data / "flair" / "zone_B_rgb.tif")],
        "dubai 4": [dubai_scene(p) for p in sorted((data / "dubai").glob("tile4_*.jpg"))],
    }


def flair_scene(path: Path) -> ArrayScene:
    pixels = _read(path)
    labels = _read(path.with_name(path.name.replace("_rgb", "_labels")))[0]
    return ArrayScene(pixels, code_table(FLAIR)[labels], 0.2)


def dubai_scene(path: Path) -> ArrayScene:
    labels = _read(path.with_name(f"{path.stem}_label.png"))[0]
    return ArrayScene(_read(path), code_table(DUBAI)[labels], DUBAI_GSD_M)


def synthetic_scene(seed: int) -> ArrayScene:
    gsd_m = 0.25 + 0.05 * (seed % 6)
    pixels, labels = SyntheticScene((1792, 1792), seed=seed, gsd_m=gsd_m).read(Window(0, 0, 1792, 1792))
    return ArrayScene(pixels[:3], code_table({c.name: (c.id,) for c in LANDCOVER.classes})[labels], gsd_m)


def code_table(ids: Mapping[str, tuple[int, ...]]) -> NDArray[np.uint8]:
    """Lookup from a source's label ids to our codes."""
    table = np.full(256, IGNORE, np.uint8)
    for name, members in ids.items():
        table[list(members)] = CODES[name]
    return table


def coarse(codes: NDArray[np.integer] | Tensor) -> NDArray[np.int16]:
    """Index in COARSE of label codes or channels; -1 where unknown."""
    table = np.full(256, -1, np.int16)
    table[: VEGETATION + 1] = [0, 1, 2, 3, 3, 4, 3]
    indices: NDArray[np.int16] = table[np.asarray(codes)]
    return indices


class HeldOut(Callback):
    """Scores the averaged weights on fixed windows of the held-out places now and then, so that a run can be judged."""

    def __init__(
        self,
        places: dict[str, list[ArrayScene]],
        card: ModelCard,
        *,
        every: int = 250,
        side: int = 512,
        count: int = 24,
    ) -> None:
        self.places, self.card, self.every, self.side, self.count = places, card, every, side, count

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        step = trainer.global_step
        if isinstance(pl_module, SegmentationTask) and step % self.every == 0:
            for place, scenes in self.places.items():
                matrix = self._score(pl_module, scenes)
                iou = " ".join(f"{name} {value:.2f}" for name, value in matrix.iou().items())
                line = f"step {step} {place}: {iou} accuracy {matrix.overall_accuracy():.3f}"
                with (Path(str(trainer.logger.save_dir)) / "held_out.log").open("a") as file:  # type: ignore[union-attr]
                    file.write(line + "\n")

    def _score(self, task: SegmentationTask, scenes: list[ArrayScene]) -> Confusion:
        matrix = Confusion(COARSE)
        network = task.average.module.eval()
        rng = np.random.default_rng(0)
        for _ in range(self.count):
            scene = scenes[int(rng.integers(len(scenes)))]
            row, col = (int(rng.integers(0, length - self.side + 1)) for length in scene.shape)
            rows, cols = slice(row, row + self.side), slice(col, col + self.side)
            pixels = torch.from_numpy(scene.pixels[None, :, rows, cols]).to(task.device).float() / 255
            seen = pooled(Model(network, self.card), pool_factor(self.card, scene.gsd_m)).network
            with torch.inference_mode():
                predicted = seen((pixels - task.mean) / task.std).argmax(1)[0].cpu()
            matrix.add(coarse(scene.labels[rows, cols]), coarse(predicted))
        return matrix


def _is_out(path: Path) -> bool:
    return any(name in path.name for name in HELD_OUT)


def _read(path: Path) -> NDArray[np.uint8]:
    with ignore_not_georeferenced(), rasterio.open(path) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()
    return pixels


if __name__ == "__main__":
    main()
