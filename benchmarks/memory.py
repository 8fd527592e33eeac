"""Peak memory of `geoseg segment`, beside what `geoseg plan` announces, for scenes that differ 600 times in size.

    python benchmarks/memory.py [--sides 8192,32768,100000]

The scenes are VRTs of a few small files, so that they can be large: most of their pixels are nodata, and are read and
written nevertheless. The model is `spectral-index`, which costs nothing; memory does not depend on how many pixels are
valid, only on block and chip.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

TILE = 4096
PEAK = """
from geoseg.cli import main
try:
    main()
finally:
    import re, sys
    print("peak", re.findall(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[0], file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="8192,32768,100000")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tile(folder / "tile.tif")
        print("side       plan, s  announced, GB   run, s   peak, GB")
        for side in map(int, args.sides.split(",")):
            scene = write_vrt(folder / f"{side}.vrt", side)
            took, told = geoseg("plan", str(scene), "--model", "spectral-index")
            announced = float(re.findall(r"memory +([\d.]+) GB", told)[0])
            ran, told = geoseg("segment", str(scene), "-o", f"{scene}.tif", "--model", "spectral-index")
            peak = int(re.findall(r"peak (\d+)", told)[0]) * 1024 / 1e9
            print(f"{side:<10} {took:7.1f}  {announced:13.2f} {ran:8.1f}   {peak:8.2f}")


def geoseg(*arguments: str) -> tuple[float, str]:
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return time.perf_counter() - started, ran.stdout + ran.stderr


def write_tile(path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, TILE, TILE), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=TILE, height=TILE, count=3, dtype="uint8", nodata=0, tiled=True,
        compress="deflate", crs="EPSG:32631", transform=Affine(10, 0, 300_000, 0, -10, 5_000_000),
    ) as raster:  # fmt: skip
        raster.write(pixels)
        raster.descriptions = ("green", "red", "nir")


def write_vrt(path: Path, side: int) -> Path:
    """The tile in two corners and the middle of a square scene, nodata elsewhere."""
    last = side - TILE
    bands = []
    for band, name in enumerate(("green", "red", "nir"), 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">tile.tif</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{TILE}" ySize="{TILE}"/>'
            f'<DstRect xOff="{at}" yOff="{at}" xSize="{TILE}" ySize="{TILE}"/></SimpleSource>'
            for at in sorted({0, last // 2, last})
        )
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><Description>{name}</Description>'
            f"<NoDataValue>0</NoDataValue>{sources}</VRTRasterBand>"
        )
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>300000, 10, 0, 5000000, 0, -10</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return path


if __name__ == "__main__":
    main()
