"""The recipes of what ships: what they learn from, and what they hold out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import HALF_METRE, write, write_rgb

from geoseg.grid import Window
from geoseg.training.config import RunConfig
from geoseg.training.losses import IGNORE
from geoseg.training.recipes import buildings_rgb, landcover_rgb, panoptic_rgb
from geoseg.training.scenes import open_scene_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two zones, and two images of Dubai, each with all codes of its labels."""
    for folder, names, ending, most in (
        ("flair", ("zone_A", "zone_B"), ("_rgb.tif", "_labels.tif"), 20),
        ("dubai", ("tile1_001", "tile4_001"), (".jpg", "_label.png"), 6),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            write_rgb(tmp_path / folder / f"{name}{ending[0]}", (20, most))
            codes = np.arange(most, dtype=np.uint8)[None, None].repeat(20, 1)
            write(tmp_path / folder / f"{name}{ending[1]}", codes, transform=HALF_METRE)
    return tmp_path


def test_zone_b_and_tile_4_are_held_out(data: Path) -> None:
    roles = {Path(source.scene).name: source.role for source in landcover_rgb.real_sources(data)}
    assert roles == {
        "zone_A_rgb.tif": "train",
        "zone_B_rgb.tif": "validate",
        "tile1_001.jpg": "train",
        "tile4_001.jpg": "validate",
    }


def test_blocks_of_houses_are_no_buildings_to_detectors(data: Path) -> None:
    """Code 1 is a building in FLAIR; code 2 is a block of houses in Dubai, where 3 is a road."""
    shown = [buildings_rgb.without_blocks(source) for source in landcover_rgb.real_sources(data)]
    run = RunConfig(steps=1)
    panoptic = panoptic_rgb.config_of(shown, run, "start", "1")
    detector = buildings_rgb.config_of([buildings_rgb.of_buildings(source) for source in shown], run, "start", "1")
    for config in (panoptic, detector):
        names = config.legend.names
        scenes = [open_scene_of(source, config.bands, config.legend) for source in config.scenes]
        flair, dubai = (scene.read_labels(Window(0, 0, 1, 6))[0] for scene in scenes[::2])
        building = names.index("building")
        assert flair[1] == building
        assert dubai[2] == IGNORE
        assert dubai[3] == names.index("paved" if "paved" in names else "other")
        assert building not in dubai
