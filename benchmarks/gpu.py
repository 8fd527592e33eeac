"""On a CUDA device: the network alone, file to file, and the share of the run in which the device computes.

    python benchmarks/gpu.py [--side 16384] [--model landcover-rgb]

Prints one row for benchmarks/RESULTS.md. The busy share is that of NVML's samples at which a kernel ran.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import torch
from speed import keep_rgb, pixels_of

from geoseg import Model, load_model, segment_file
from geoseg.inference import Backend, Predictor
from geoseg.synthetic import SyntheticScene, write_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--model", default="landcover-rgb")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here")
    model = load_model(args.model)
    with tempfile.TemporaryDirectory() as temporary:
        scene = Path(temporary) / "scene.tif"
        write_scene(SyntheticScene((4096, 4096), seed=7, gsd_m=0.4), Path(temporary) / "four.tif")
        keep_rgb(Path(temporary) / "four.tif", Path(temporary) / "rgb.tif")
        repeat(Path(temporary) / "rgb.tif", scene, args.side)
        pixels = pixels_of(scene)
        forward = forward_speed(model)
        with BusyShare() as busy:
            started = time.perf_counter()
            segment_file(scene, Path(temporary) / "out.tif", model=model)
            run = pixels / (time.perf_counter() - started)
    print("| card | torch | forward, Mpx/s | file to file, Mpx/s | ratio | device busy |")
    print(
        f"| {torch.cuda.get_device_name()} | {torch.__version__} | {forward / 1e6:.1f} | {run / 1e6:.1f} | "
        f"{forward / run:.2f} | {100 * busy.share:.0f} % |"
    )


def forward_speed(model: Model, seconds: float = 5.0) -> float:
    """Pixels per second of chips that lie on the device already."""
    predictor = Predictor(model, Backend.resolve("cuda", card=model.card))
    side = model.card.chip_px
    batch = torch.zeros(predictor.batch(side), len(model.card.bands), side, side, device="cuda")
    predictor.engine(batch)
    torch.cuda.synchronize()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        predictor.engine(batch)
        torch.cuda.synchronize()
        count += 1
    return count * len(batch) * side**2 / (time.perf_counter() - started)


def repeat(tile: Path, scene: Path, side: int) -> None:
    """A large scene from copies of a small one, written as a file of its own."""
    vrt = scene.with_suffix(".vrt")
    times = range(0, side, 4096)
    size = 'xSize="4096" ySize="4096"'
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/></SimpleSource>'
            for row in times
            for col in times
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    vrt.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>300000, 0.4, 0, 5000000, 0, -0.4</GeoTransform>{bands}</VRTDataset>"
    )
    keep_rgb(vrt, scene)


class BusyShare:
    """Samples the device's utilization while its context lasts."""

    def __enter__(self) -> BusyShare:
        self._samples: list[float] = []
        self._process = subprocess.Popen(
            ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._samples.append(float(line.split()[0]) / 100)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._thread.join()

    @property
    def share(self) -> float:
        return sum(self._samples) / max(1, len(self._samples))


if __name__ == "__main__":
    main()
