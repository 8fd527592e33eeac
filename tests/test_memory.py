"""What a run will hold is said before it starts, and kept (promise 4)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import save_tiny, small_card, small_model, write_rgb
from torch import nn

from geoseg.errors import InputError
from geoseg.inference import Plan, RunOptions
from geoseg.inference.memory import network_bytes, weight_bytes
from geoseg.inference.plan import Load
from geoseg.models import Model, load_model
from geoseg.models.pooled import pooled
from geoseg.pipeline import plan_file

CPU = {"device": "cpu", "precision": "float32", "engine": "torch"}
LOAD = Load(pixel_bytes=3, layers=1)
PEAK = """
import sys
from geoseg.cli import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    print("peak", status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def planned(shape: tuple[int, int] = (40_000, 50_000), **options: object) -> Plan:
    run = RunOptions(**{**CPU, **options})
    return Plan.of(shape, small_card(), run).within(run, small_model(), LOAD)


def test_what_is_alive_grows_with_the_chips_area() -> None:
    weights = 2 * weight_bytes(small_model().network)
    small, large = (network_bytes(small_model(), side, "torch") - weights for side in (128, 512))
    assert large == pytest.approx(16 * small, rel=0.01)


def test_alive_are_input_and_two_layers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 32, 1), nn.Conv2d(32, 6, 1))
    found = network_bytes(Model(network, small_card()), 100, "openvino")
    pixel = 100 * 100 * 4
    weights = 4 * (3 * 8 + 8 + 8 * 32 + 32 + 32 * 6 + 6)
    assert found == 2 * weights + pixel * (2 * 3 + 2 * 6) + int(1.15 * pixel * (3 + 8 + 32))


@pytest.mark.parametrize("name", ["buildings-rgb", "panoptic-rgb"])
def test_detectors_that_ship_fit_in_four_gigabytes(name: str) -> None:
    """With the chip of their card, on the finest scenes that they are good for."""
    model = pooled(load_model(name), 2)
    free = Plan.of((40_000, 50_000), model.card, RunOptions(**CPU))
    options = RunOptions(**CPU, memory_gb=4, chip=free.grid.chip)
    assert Plan.of((40_000, 50_000), model.card, options).within(options, model, LOAD).grid.chip >= 2000
    assert network_bytes(model, free.grid.chip, "torch") > 2 * weight_bytes(model.network) + 400e6


def test_memory_does_not_depend_on_the_scene() -> None:
    small, large = planned((4096, 4096), chip=256), planned((10**6, 10**6), chip=256)
    assert small.memory(small_model(), LOAD) == large.memory(small_model(), LOAD)


@pytest.mark.parametrize("budget", [1.6, 1.8, 2.5, 8])
def test_a_budget_is_kept_by_smaller_blocks_and_then_chips(budget: float) -> None:
    plan = planned(memory_gb=budget)
    free = planned()
    assert plan.memory(small_model(), LOAD).total <= budget * 1e9
    assert plan.grid.block_side <= free.grid.block_side
    assert plan.grid.chip == free.grid.chip or plan.grid.block_side == plan.grid.core


def test_the_same_budget_gives_the_same_plan() -> None:
    assert planned(memory_gb=1.7) == planned(memory_gb=1.7)


def test_a_budget_too_small_for_the_chip_names_one_that_fits() -> None:
    with pytest.raises(
        InputError, match=r"need about .* GB .*--memory allows 2; --chip \d+ --block \d+ would fit"
    ) as told:
        planned(memory_gb=2, chip=4096)
    chip, block = map(int, re.findall(r"--chip (\d+) --block (\d+)", str(told.value))[0])
    assert planned(memory_gb=2, chip=chip, block=block).grid.chip == chip


def test_a_budget_too_small_for_any_chip_says_so() -> None:
    with pytest.raises(InputError, match=r"no chip would fit; the smallest, --chip 72, needs 1\.\d\d GB"):
        planned(memory_gb=0.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_run_stays_under_what_was_announced(tmp_path: Path) -> None:
    """And the announcement is no excuse: the run needs at least a third of it."""
    options = ["--chip", "1024", "--confidence", "conf.tif"]
    write_rgb(tmp_path / "scene.tif", (1500, 1700))
    model = save_tiny(tmp_path / "tiny")
    command = ["segment", "scene.tif", "-o", "cover.tif", "--model", str(model), "--device", "cpu", *options]
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
    )
    assert ran.returncode == 0, ran.stderr
    peak = int(re.findall(r"peak (\d+)", ran.stderr)[-1]) * 1024
    run = RunOptions(device="cpu", chip=1024)
    forecast = plan_file(tmp_path / "scene.tif", model=model, run=run, confidence=True, calibrate=False)
    assert forecast.memory_bytes / 3 < peak < forecast.memory_bytes


def test_what_is_forecast_is_what_is_done(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (131, 149))
    model = save_tiny(tmp_path / "tiny")
    forecast = plan_file(scene, model=model, run=RunOptions(**CPU, chip=96, block=32), confidence=True)
    core = forecast.plan.grid.core
    assert forecast.chips == int(np.ceil(131 / core) * np.ceil(149 / core))
    assert forecast.blocks == int(np.prod(forecast.plan.grid.block_counts))
    assert forecast.output_bytes == 2 * 131 * 149
    assert forecast.seconds > 0
    assert forecast.extra_pixels == pytest.approx(forecast.chips * 96**2 / (131 * 149) - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "tiny"]
