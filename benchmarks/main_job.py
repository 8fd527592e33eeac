"""Scene to land cover to polygons: seconds and pixels per second of each step, and peak memory of the process.

python benchmarks/main_job.py SCENE [--model NAME] [--bands red=1,...] [--out DIR]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from geoseg import RunOptions, SceneOptions, VectorOptions, segment_file, vectorize_file
from geoseg.cli.options import parse_bands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene")
    parser.add_argument("--model", default="landcover-rgb")
    parser.add_argument("--bands")
    parser.add_argument("--classes", default="building,water,vegetation")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        landcover, confidence = folder / "landcover.tif", folder / "confidence.tif"
        summary = segment_file(
            args.scene,
            landcover,
            model=args.model,
            confidence=confidence,
            reading=SceneOptions(bands=parse_bands(args.bands)),
            run=RunOptions(workers=args.workers),
            overwrite=True,
        )
        for step, seconds in summary.seconds.items():
            report(step, seconds, summary.pixels)
        started = time.perf_counter()
        polygons = vectorize_file(
            landcover,
            folder / "polygons.gpkg",
            VectorOptions(classes=args.classes.split(","), confidence=confidence),
            overwrite=True,
        )
        report("vectorize", time.perf_counter() - started, summary.pixels)
    print(", ".join(f"{count} {name}" for name, count in polygons.counts.items()))


def report(step: str, seconds: float, pixels: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{step:<10} {seconds:8.1f} s {pixels / seconds / 1e6:8.2f} Mpx/s   peak so far {peak:.2f} GiB")


if __name__ == "__main__":
    main()
