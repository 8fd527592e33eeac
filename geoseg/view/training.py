"""A training as a folder: the bundle, its config, checkpoint, history.csv, and pictures of chips, curves and scores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoseg.legend import Legend
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.training.config import TrainConfig, load_config
from geoseg.training.train import Trained, Training, check_folder
from geoseg.training.watch import History
from geoseg.view.evaluation import draw_shares, figure_as_png

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
SHOWN = 12  # chips in the picture of samples
BLACK, WHITE = 2, 98  # percentiles of a chip's pixels that are drawn as such


def train(
    config: str | os.PathLike[str] | TrainConfig,
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train a network on labelled scenes; the result is a bundle like those that ship.

    The folder gets config.yaml, samples.png (before the first step), history.csv, last.ckpt, best.safetensors,
    curves.png, confusion.png and the bundle. Held-out places choose the weights that are kept, and are what the scores
    on the card are of; judge a model that is to be published on places of a third kind with `geoseg.evaluate_file`.

    Args:
        config: a YAML file (`geoseg train --example` prints one), or one that is read already.
        out: folder of the training; it is made if need be.
        steps: of the optimizer, in place of the config's.
        resume: go on from the last checkpoint in `out`, to the same result as without a break.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: config, scenes, labels, split, network or folder cannot be used; the message says what to do.
        GeosegError: the loss is no number, or a file could not be read or written; what was kept is in `out`.
    """
    if not isinstance(config, TrainConfig):
        config = load_config(config)
    if steps is not None:
        config = config.with_steps(steps)
    out = Path(out)
    check_folder(out, resume=resume)  # before labels are read, which can take minutes
    training = Training.of(config)

    def before() -> None:
        with disk_errors("writing pictures", out):
            publish_bytes(out / "samples.png", draw_samples(training))

    trained = training.run(out, resume=resume, before=before, progress=progress)
    legend = training.codes.legend
    with disk_errors("writing pictures", out):
        publish_bytes(out / "curves.png", draw_curves(trained.history))
        shares = draw_shares(trained.confusion, trained.codes.names, legend.names)
        publish_bytes(out / "confusion.png", shares)
    return trained


def draw_samples(training: Training) -> bytes:
    """PNG: chips as the network gets them, with their labels below; gray where nothing is labelled."""
    samples, legend = training.samples(), training.codes.legend
    count = min(SHOWN, len(samples))
    figure = Figure(figsize=(1.7 * count, 3.8), dpi=100)
    rows = figure.subplots(2, count, squeeze=False)
    for above, below, index in zip(*rows, range(count), strict=True):
        pixels, codes = samples[index]
        above.imshow(_picture(pixels.numpy(), training.config.bands))
        below.imshow(_painted(codes.numpy(), legend, training.codes.members))
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
    figure.legend(
        handles=[_patch(entry.color, entry.name) for entry in legend.classes],
        loc="lower center",
        ncols=min(8, len(legend.classes)),
        fontsize=8,
    )
    return figure_as_png(figure, bottom=0.12)


def draw_curves(history: History) -> bytes:
    """PNG: losses, and scores of the held-out chips, by step; the look that was kept is marked."""
    steps = [row["step"] for row in history.rows]
    figure = Figure(figsize=(7, 6), dpi=120)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, label in (("loss", "training"), ("validation_loss", "held out")):
        upper.plot(steps, [row[name] for row in history.rows], marker=".", label=label)
    upper.set(ylabel="loss")
    for name in history.rows[0]:
        values = np.array([row[name] for row in history.rows])
        if name.startswith("iou_") and np.isfinite(values).any():
            lower.plot(steps, values, linewidth=0.8, label=name.removeprefix("iou_"))
    lower.plot(steps, [row["mean_iou"] for row in history.rows], color="black", marker=".", label="mean")
    lower.set(xlabel="step", ylabel="IoU, held out", ylim=(0, 1))
    for axes in (upper, lower):
        axes.axvline(history.best_step, color="gray", linestyle="--", linewidth=0.8)
        axes.legend(fontsize=8, ncols=2)
    return figure_as_png(figure)


def _picture(pixels: NDArray[np.float32], bands: tuple[str, ...]) -> NDArray[np.float32]:
    """(height, width, 3): red, green and blue where they are there, else the first band in gray; stretched."""
    wanted = [bands.index(name) for name in ("red", "green", "blue") if name in bands]
    chosen = pixels[wanted if len(wanted) == 3 else [0, 0, 0]]
    known = chosen[np.isfinite(chosen)]
    low, high = np.percentile(known, (BLACK, WHITE)) if known.size else (0.0, 1.0)
    stretched = (np.nan_to_num(chosen, nan=low) - low) / max(high - low, 1e-6)
    picture: NDArray[np.float32] = np.moveaxis(stretched.clip(0, 1), 0, -1).astype(np.float32)
    return picture


def _painted(codes: NDArray[np.uint8], legend: Legend, members: tuple[tuple[int, ...], ...]) -> NDArray[np.uint8]:
    """(height, width, 3): a group has the mean color of its classes."""
    table = np.full((256, 3), 217, np.uint8)
    colors = np.array([entry.rgb for entry in legend.classes], float)
    for code, channels in enumerate(members):
        table[code] = colors[list(channels)].mean(0)
    return table[codes]


def _patch(color: str, name: str) -> object:
    from matplotlib.patches import Patch

    return Patch(color=color, label=name)
