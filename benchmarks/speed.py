"""File to file: geoseg against the bare network, MONAI, a plain torch loop and geoai, the same weights, in one run.

    python benchmarks/speed.py [--side 4096] [--network timing|landcover-rgb] [--peers monai,loop,geoai] [--check]

The scene is synthetic: RGB uint8, tiled, deflate. `timing` is segmentation_models_pytorch's Unet("resnet18") with five
classes and random weights; its halo is that of a trained network of its size. The floor is the network alone on its
best chips, each pixel once, nothing read or written. What to quote are the ratios. --check compares geoseg's classes,
with default options and in float32, with those of one float32 pass over the whole scene.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import geoseg.inference.run  # noqa: F401 (imports are no part of what is timed, here or with the others)
from geoseg import Model, RunOptions, load_model, segment_file
from geoseg.inference import Backend, Predictor
from geoseg.inference.fit import normalization_for
from geoseg.inference.plan import little_waste
from geoseg.legend import LANDCOVER, Legend
from geoseg.models import Architecture, CardBand, ModelCard
from geoseg.models.receptive import receptive_field
from geoseg.raster.normalize import Normalization
from geoseg.synthetic import SyntheticScene, write_scene

FLOOR_CHIPS = (512, 1024, 2048)
HALO = 96  # of the timing network: random weights look farther than any trained ones, and nobody reads their answer
PEER_CHIP, PEER_OVERLAP = 512, 0.25  # MONAI's overlap is its default
RGB = ("red", "green", "blue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--network", default="timing", help="timing, or a bundle for RGB")
    parser.add_argument("--peers", default="monai,loop")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene = folder / "scene.tif"
        write_scene(SyntheticScene((args.side, args.side), seed=7, gsd_m=0.4), folder / "four.tif")
        keep_rgb(folder / "four.tif", scene)
        model = timing_model() if args.network == "timing" else load_model(args.network)
        compare(model, scene, folder, [name for name in args.peers.split(",") if name])
        if args.check:
            check(model, scene, folder)


def compare(model: Model, scene: Path, folder: Path, peers: list[str]) -> None:
    pixels = pixels_of(scene)
    floor = max(floor_speed(model, chip) for chip in FLOOR_CHIPS)
    started = time.perf_counter()
    summary = segment_file(scene, folder / "geoseg.tif", model=model)
    speed = pixels / (time.perf_counter() - started)
    with rasterio.open(folder / "geoseg.tif") as output:
        print(output.tags()["GEOSEG_OPTIONS"])
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.seconds.items())
    print(f"{'floor':<10} {floor / 1e6:7.3f} Mpx/s")
    print(f"{'geoseg':<10} {speed / 1e6:7.3f} Mpx/s   {floor / speed:.2f} x the floor's time   ({steps})")
    for name in peers:
        work = PEERS[name]
        if work is None:
            print(f"{name:<10} is not installed")
            continue
        started = time.perf_counter()
        work(model, scene, folder / f"{name}.tif")
        peer = pixels / (time.perf_counter() - started)
        print(f"{name:<10} {peer / 1e6:7.3f} Mpx/s   geoseg has {speed / peer:.1f} x its speed")


def floor_speed(model: Model, chip: int, seconds: float = 8.0) -> float:
    """Pixels per second of the fastest backend on chips of one size."""
    predictor = Predictor(model, Backend.resolve(card=model.card))
    pixels = np.random.default_rng(0).normal(size=(len(model.card.bands), chip, chip)).astype(np.float32)
    predictor.logits(pixels)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        predictor.logits(pixels)
        count += 1
    return count * chip**2 / (time.perf_counter() - started)


def check(model: Model, scene: Path, folder: Path) -> None:
    """Share of pixels whose class is that of one pass over the whole scene, which is reflected outward."""
    with rasterio.open(scene) as raster:
        pixels = raster.read()
    whole = whole_pass(model, pixels)
    for name, run in {"default": RunOptions(), "float32, exact": RunOptions(precision="float32", halo="exact")}.items():
        output = folder / "checked.tif"
        segment_file(scene, output, model=model, run=run, overwrite=True)
        with rasterio.open(output) as raster:
            same = float((raster.read(1) == whole).mean())
        print(f"{name}: {100 * same:.4f} % of pixels as in one float32 pass")


def whole_pass(model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[1:]
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    margins = [(halo, halo + -length % stride) for length in (height, width)]
    reflected = np.pad(normalized(model, pixels), ((0, 0), *margins), mode="reflect")
    backend = replace(Backend.resolve(card=model.card), precision="float32")
    logits = Predictor(model, backend).logits(reflected)[:, halo : halo + height, halo : halo + width]
    return np.array(model.card.legend.ids, np.uint8)[logits.argmax(0).cpu().numpy()]


def monai(model: Model, scene: Path, output: Path) -> None:
    """MONAI's sliding window over the whole image, Gaussian weights, eager float32 as it comes."""
    from monai.inferers import sliding_window_inference

    image = torch.from_numpy(read_normalized(model, scene))[None]
    with torch.inference_mode():
        logits = sliding_window_inference(
            image, (PEER_CHIP, PEER_CHIP), 4, plain(model), overlap=PEER_OVERLAP, mode="gaussian"
        )
    write_classes(model, scene, output, logits[0])


def loop(model: Model, scene: Path, output: Path) -> None:
    """What one writes first: overlapping chips, averaged, in eager float32."""
    image = torch.from_numpy(read_normalized(model, scene))
    network = plain(model)
    total = torch.zeros(len(model.card.legend.classes), *image.shape[1:])
    count = torch.zeros(image.shape[1:])
    step = int(PEER_CHIP * (1 - PEER_OVERLAP))
    starts = [sorted({min(s, n - PEER_CHIP) for s in range(0, n, step)}) for n in image.shape[1:]]
    with torch.inference_mode():
        for row in starts[0]:
            for col in starts[1]:
                rows, cols = slice(row, row + PEER_CHIP), slice(col, col + PEER_CHIP)
                total[:, rows, cols] += network(image[None, :, rows, cols])[0]
                count[rows, cols] += 1
    write_classes(model, scene, output, total / count)


def geoai(model: Model, scene: Path, output: Path) -> None:
    from geoai.train import semantic_inference_on_geotiff

    semantic_inference_on_geotiff(
        plain(model),
        str(scene),
        str(output),
        window_size=PEER_CHIP,
        overlap=int(PEER_CHIP * PEER_OVERLAP),
        num_classes=len(model.card.legend.classes),
        num_channels=len(model.card.bands),
        device="cpu",
    )


PEERS: dict[str, Callable[[Model, Path, Path], None] | None] = {
    "monai": monai if find_spec("monai") else None,
    "loop": loop,
    "geoai": geoai if find_spec("geoai") else None,
}


def plain(model: Model) -> Callable[[Tensor], Tensor]:
    """The module as the library gives it: its own memory format, no compiler."""
    network: nn.Module = model.network.to(memory_format=torch.contiguous_format).eval()
    return network


def timing_model() -> Model:
    """smp.Unet("resnet18"), five classes, random weights."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=5).eval()
    reach = receptive_field(network, bands=3, output_stride=32)
    card = ModelCard(
        name="timing",
        version="1",
        description="random weights: for timing only",
        license="Apache-2.0",
        architecture=Architecture(name="unet"),
        scales={"uint8": 1 / 255},
        bands=tuple(CardBand(name=name, mean=0.45, std=0.22) for name in RGB),
        legend=Legend(classes=LANDCOVER.classes[:5]),
        gsd_m=0.4,
        gsd_range_m=(0.1, 2.0),
        output_stride=32,
        receptive_field_px=reach,
        halo_px=HALO,
        chip_px=max(1024, little_waste(HALO, 32)),
        position_independent=True,
    )
    print(f"timing network: receptive field {reach} px, halo {HALO} px")
    return Model(network, card)


def read_normalized(model: Model, scene: Path) -> NDArray[np.float32]:
    with rasterio.open(scene) as raster:
        return normalized(model, raster.read())


def normalized(model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    normalization: Normalization = normalization_for(model.card, RGB, "uint8")
    return normalization(pixels, np.ones(pixels.shape[1:], np.bool_))


def write_classes(model: Model, scene: Path, output: Path, logits: Tensor) -> None:
    ids = np.array(model.card.legend.ids, np.uint8)
    with rasterio.open(scene) as raster:
        profile = raster.profile | {"count": 1, "photometric": None}
    profile.pop("photometric")
    with rasterio.open(output, "w", **profile) as raster:
        raster.write(ids[logits.argmax(0).numpy()], 1)


def keep_rgb(four: Path, scene: Path) -> None:
    with rasterio.open(four) as raster:
        profile = raster.profile | {
            "count": 3,
            "compress": "deflate",
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
        }
        with rasterio.open(scene, "w", **profile) as output:
            for _, window in output.block_windows(1):
                output.write(raster.read([1, 2, 3], window=window), window=window)
            output.descriptions = RGB


def pixels_of(scene: Path) -> int:
    with rasterio.open(scene) as raster:
        return raster.width * raster.height


if __name__ == "__main__":
    main()
