"""Small models and scenes that several tests share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from scene_files import write

from geoseg.grid import ChipGrid, Window
from geoseg.inference import Backend, Predictor, Segmenter
from geoseg.inference.segment import Cover
from geoseg.legend import LANDCOVER
from geoseg.models import Architecture, CardBand, Model, ModelCard, build_network, save_model
from geoseg.models.receptive import receptive_field
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels

torch.set_num_threads(1)  # small chips gain nothing by more, and lose much where cores are shared

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "tu-resnet18", "depth": 3, "decoder_channels": [16, 8]},
    "deeplabv3plus": {"encoder": "resnet18"},
    "deeplabv3plus-local": {"encoder": "tu-resnet18", "depth": 3, "rates": [1, 2], "pool": 3, "channels": 16},
}
TINY: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "tu-resnet18", "depth": 2, "decoder_channels": [8, 8]},
    "deeplabv3plus": SMALL["deeplabv3plus"],
    "deeplabv3plus-local": {"encoder": "tu-resnet18", "depth": 2, "rates": [1], "pool": 3, "channels": 8},
}
HALF_METRE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
RGB = Normalization(1 / 255, 0.0, (0.5,) * 3, (0.2,) * 3, (True,) * 3)


def small_card(architecture: str = "unet", /, **changes: object) -> ModelCard:
    stride = {"unet": 8, "deeplabv3plus": 16, "deeplabv3plus-local": 8}[architecture]
    fields = {
        "name": "small",
        "version": "1",
        "description": "random weights",
        "license": "Apache-2.0",
        "architecture": Architecture(name=architecture, args=SMALL[architecture]),
        "scales": {"uint8": 1 / 255},
        "bands": tuple(CardBand(name=name, mean=0.5, std=0.2) for name in ("red", "green", "blue")),
        "legend": LANDCOVER,
        "gsd_m": 0.5,
        "gsd_range_m": (0.2, 1.0),
        "output_stride": stride,
        "receptive_field_px": 64,
        "halo_px": 32,
        "chip_px": 256,
        "position_independent": architecture != "deeplabv3plus",
    }
    return ModelCard(**(fields | changes))


def small_model(architecture: str = "unet", *, seed: int = 0) -> Model:
    card = small_card(architecture)
    torch.manual_seed(seed)
    args = dict(card.architecture.args)
    network = build_network(architecture, bands=3, classes=len(LANDCOVER.classes), args=args)
    return Model(network, card)


@cache
def tiny_model(architecture: str = "unet", *, seed: int = 0) -> Model:
    """Random weights that tell all classes, the smallest halo that is exact, and small chips."""
    torch.manual_seed(seed)
    args = TINY[architecture]
    network = build_network(architecture, bands=3, classes=len(LANDCOVER.classes), args=args)
    spread_classes(network)
    stride = 2 ** args.get("depth", 4)
    exact = architecture != "deeplabv3plus"
    reach = receptive_field(network, bands=3, output_stride=stride) if exact else 16
    halo = -(-reach // stride) * stride
    card = small_card(
        architecture,
        name="tiny",
        architecture=Architecture(name=architecture, args=args),
        output_stride=stride,
        receptive_field_px=reach,
        halo_px=halo,
        chip_px=2 * halo + 16 * stride,
        ramp_px=0 if exact else 16,
    )
    return Model(network, card)


def spread_classes(network: torch.nn.Module) -> None:
    """Random normalizations, and a last layer after which each class is the likeliest somewhere."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.inference_mode():
        logits = network(torch.from_numpy(RGB(pixels_of((64, 64), seed=9), np.ones((64, 64), np.bool_)))[None])[0]
        center, width = logits.mean((1, 2)), logits.std((1, 2))
    with torch.no_grad():
        last.weight *= (2 / width)[:, None, None, None]
        last.bias.copy_((last.bias - center) * 2 / width)


def pixels_of(shape: tuple[int, int], *, seed: int = 0, bands: int = 3) -> NDArray[np.uint8]:
    """(bands, height, width): plains of different colours, and noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    colors = rng.integers(20, 236, (bands, 4, 4))
    plains = colors[:, (rows // 23) % 4, (cols // 31) % 4]
    return np.clip(plains + rng.normal(0, 20, (bands, *shape)), 0, 255).astype(np.uint8)


def write_rgb(path: Path, shape: tuple[int, int] = (131, 149), *, seed: int = 0, **profile: Any) -> Path:
    """A scene that the small models take, as a tiled GeoTIFF."""
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} if min(shape) > 63 else {}
    values = profile.pop("values", None)
    values = pixels_of(shape, seed=seed) if values is None else values
    options = {"transform": HALF_METRE, **tiled, **profile}
    return write(path, values, descriptions=("red", "green", "blue"), **options)


def read_band(path: Path, number: int = 1) -> NDArray[Any]:
    with ignore_not_georeferenced(), rasterio.open(path) as file:
        values: NDArray[Any] = file.read(number)
    return values


def whole_pass(model: Model, pixels: NDArray[np.uint8], *, halo: int, engine: str = "torch") -> NDArray[np.float32]:
    """Logits (class, height, width) of one pass over the scene reflected outward by the halo; no code of the grid."""
    height, width = pixels.shape[1:]
    stride = model.card.output_stride
    margins = [(halo, halo + -length % stride) for length in (height, width)]
    normalized = RGB(pixels, np.ones((height, width), np.bool_))
    reflected = np.pad(normalized, ((0, 0), *margins), mode="reflect")
    logits = Predictor(model, Backend("cpu", "float32", engine)).logits(reflected).numpy()
    return logits[:, halo : halo + height, halo : halo + width]


def segmented(
    model: Model,
    pixels: NDArray[np.uint8],
    *,
    chip: int,
    halo: int,
    block: int = 0,
    ramp: int = 0,
    valid: NDArray[np.bool_] | None = None,
    backwards: bool = False,
    engine: str = "torch",
) -> Cover:
    """A scene in memory by blocks."""
    shape = pixels.shape[1:]
    measured = np.ones(shape, np.bool_) if valid is None else valid
    grid = ChipGrid.of(shape, chip=chip, halo=halo, output_stride=model.card.output_stride, ramp=ramp, block=block)
    segmenter = Segmenter(grid, RGB, Predictor(model, Backend("cpu", "float32", engine)), probabilities=True)

    def read(window: Window) -> Pixels:
        rows, cols = window.slices
        return Pixels(pixels[:, rows, cols], measured[rows, cols])

    classes = len(model.card.legend.classes)
    cover = Cover(np.zeros(shape, np.uint8), np.zeros(shape, np.float32), np.zeros((classes, *shape), np.float32))
    blocks = list(grid.blocks())
    for one in reversed(blocks) if backwards else blocks:
        rows, cols = one.window.slices
        part = segmenter(one.window, read)
        cover.class_map[rows, cols], cover.confidence[rows, cols] = part.class_map, part.confidence
        cover.probabilities[:, rows, cols] = part.probabilities
    return cover


def save_tiny(folder: Path) -> Path:
    """The tiny U-Net as a bundle on disk."""
    save_model(tiny_model(), folder)
    return folder
