"""Promise 6 with real processes: a run killed at any moment goes on to the bytes of an uninterrupted one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders import read_band, write_rgb
from killing import KILLED, SCENE, Server

NAMES = ("confidence.tif", "out.tif")
RANDOM_KILLS = 20  # and one for each of the moments below


@dataclass(frozen=True)
class Uninterrupted:
    """A scene, the server that segments it, what comes of it by seed of the model, and the processor's time."""

    server: Server
    scene: Path
    outputs: tuple[dict[str, bytes], dict[str, bytes]]
    seconds: float

    def run(self, folder: Path, **task: Any) -> int:
        """A run during which no output is ever seen that is not whole."""
        whole = {name: {outputs[name] for outputs in self.outputs} for name in NAMES}
        with watched(folder, whole):
            code = self.server.run(self.scene, folder / "out.tif", **task)
        for name in NAMES:
            if (folder / name).exists():
                assert read_band(folder / name).shape == SCENE
        return code


def outputs_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"a folder" for path in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uninterrupted]:
    base, server = tmp_path_factory.mktemp("uninterrupted"), Server()
    scene = write_rgb(base / "scene.tif", SCENE)
    found: list[dict[str, bytes]] = []
    for seed in (0, 1):
        (base / str(seed)).mkdir()
        before = server.seconds
        assert server.run(scene, base / str(seed) / "out.tif", seed=seed) == 0
        seconds = server.seconds - before
        found.append(outputs_in(base / str(seed)))
    assert sorted(found[0]) == sorted([*NAMES, *(f"{name}.aux.xml" for name in NAMES)])
    assert found[0]["out.tif"] != found[1]["out.tif"]
    yield Uninterrupted(server, scene, (found[0], found[1]), seconds)
    server.close()


@contextmanager
def watched(folder: Path, whole: dict[str, set[bytes]]) -> Iterator[None]:
    """Read the outputs when they appear and whenever they change, as long as the block lasts."""
    ended, broken = threading.Event(), []
    seen: dict[str, tuple[int, int, int]] = {}

    def look() -> None:
        while not ended.wait(0.003):
            for name in NAMES:
                try:
                    status = (folder / name).stat()
                    state = status.st_ino, status.st_size, status.st_mtime_ns
                    if seen.get(name) != state and (folder / name).read_bytes() not in whole[name]:
                        broken.append((name, state))
                    seen[name] = state
                except FileNotFoundError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert broken == []


def test_runs_killed_at_random_moments_end_with_the_same_bytes(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    moments, kills, chains = random.Random(11), 0, 0
    while kills < RANDOM_KILLS:
        chains += 1
        folder, shared = tmp_path / str(chains), tmp_path / f"shared-{chains}"
        folder.mkdir()
        shared.mkdir()
        task: dict[str, Any] = {"staging": str(shared)} if chains % 3 == 0 else {}
        if chains % 2 == 0:  # an older output is to be replaced
            task |= {"overwrite": True}
            for name, content in uninterrupted.outputs[1].items():
                (folder / name).write_bytes(content)
        code = KILLED
        while code == KILLED:
            last = kills == RANDOM_KILLS or kills >= 6 * chains
            after = {} if last else {"after": moments.uniform(0.02, 0.85) * uninterrupted.seconds}
            code = uninterrupted.run(folder, **task, **after)
            kills += code == KILLED
        assert code == 0
        assert outputs_in(folder) == uninterrupted.outputs[0]
        assert list(shared.iterdir()) == []


COG = "{}.geoseg-partial/cog/cog.tif*"
LEFT = "out.tif.geoseg-partial/"


@pytest.mark.parametrize(
    ("task", "there", "missing"),
    [
        ({"before": ("os.rename", LEFT + "run.json", 1)}, LEFT + ".*.tmp", LEFT + "run.json"),
        ({"before": ("os.rename", "/run.json", 2)}, LEFT + "blocks-*/.*.tmp", LEFT + "blocks-*/run.json"),
        ({"before": ("os.rename", "/landcover/2/3.tif", 1)}, LEFT + "blocks-*/landcover/2/.*.tmp", "*/*/done/2/3.json"),
        ({"before": ("os.rename", "/done/1/1.json", 1)}, LEFT + "blocks-*/landcover/1/1.tif", "*/*/done/1/1.json"),
        ({"at": COG.format("confidence.tif")}, COG.format("confidence.tif"), "*.tif"),
        ({"before": ("os.rename", "/confidence.tif", 1)}, "confidence.tif.aux.xml", "*.tif"),
        ({"at": COG.format("out.tif")}, COG.format("out.tif"), "out.tif"),
        ({"before": ("os.rename", "/out.tif.aux.xml", 1)}, "confidence.tif", "out.tif.aux.xml"),
        ({"before": ("os.rename", "/out.tif", 1)}, "out.tif.aux.xml", "out.tif"),
        ({"before": ("os.remove", LEFT + "run.json", 1)}, LEFT + "run.json", LEFT + "cog"),
        ({"before": ("os.remove", "3.json", 2)}, LEFT + "blocks-*/done", LEFT + "run.json"),
    ],
    ids=[
        "before the record",
        "before the record of the blocks",
        "while a block is staged",
        "before a block's marker",
        "while the confidence is copied",
        "before the confidence",
        "while the land cover is copied",
        "before the sidecar",
        "between sidecar and land cover",
        "before the blocks are discarded",
        "while the blocks are discarded",
    ],
)
def test_a_run_killed_at_a_certain_moment_ends_with_the_same_bytes(
    uninterrupted: Uninterrupted, tmp_path: Path, task: dict[str, Any], there: str, missing: str
) -> None:
    assert uninterrupted.run(tmp_path, **task) == KILLED
    assert list(tmp_path.glob(there))
    assert [path for path in tmp_path.glob(missing) if path.is_file()] == []
    assert uninterrupted.run(tmp_path) == 0
    assert outputs_in(tmp_path) == uninterrupted.outputs[0]


def test_polygons_of_a_run_that_was_killed_are_those_of_one_that_was_not(
    uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert uninterrupted.run(whole, polygons=True) == 0
    assert sorted(outputs_in(whole)) == sorted([*uninterrupted.outputs[0], "out.gpkg"])
    for number, end in enumerate(["/traces/1/2.npz", "/done/1/1.json", "/out.gpkg"]):
        killed = tmp_path / str(number)
        killed.mkdir()
        assert uninterrupted.run(killed, polygons=True, before=("os.rename", end, 1)) == KILLED
        assert not (killed / "out.gpkg").exists()
        assert uninterrupted.run(killed, polygons=True) == 0
        assert outputs_in(killed) == outputs_in(whole)
