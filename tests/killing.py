"""Runs of `segment_file` in processes of their own that are killed at a chosen moment.

A server imports everything once and forks for each run, so that a run starts at once. Nothing is faked: a run that is
to die right before a certain action listens to the events of its interpreter (`sys.addaudithook`) and kills itself, as
the system would; one that is to die at a time, or when a file appears, is killed by the server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

SCENE = (400, 470)
BLOCK = 128
KILLED = -signal.SIGKILL


class Server:
    """Forks runs; one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run(self, scene: Path, output: Path, **task: Any) -> int:
        """Segment and return the exit code; `KILLED` where it was killed.

        Args:
            scene: path.
            output: the confidence goes beside it.
            task: when to die: `after` so many seconds of the processor's time, `at` the appearance of a file that
                matches this pattern in the output's folder, `before` an action (event, end of the path, how many
                times); and of the run: `seed` of the model, `staging`, `overwrite` and `polygons`.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"scene": str(scene), "output": str(output), **task}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    @property
    def seconds(self) -> float:
        """Of the processor, that the runs so far have had."""
        return sum(psutil.Process(self.process.pid).cpu_times()[2:4])

    def close(self) -> None:
        self.process.communicate()


def serve() -> None:
    import torch

    import geoseg.pipeline  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(segment(task))
        sys.stdout.write(f"{watch(child, task)}\n")
        sys.stdout.flush()


def watch(child: int, task: dict[str, Any]) -> int:
    """Wait for the end of a run, or bring it about."""
    process, most = psutil.Process(child), task.get("after")
    folder, pattern = Path(task["output"]).parent, task.get("at")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        is_late = most is not None and sum(process.cpu_times()[:2]) > most
        if is_late or (pattern and next(folder.glob(pattern), None)):
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)


def segment(task: dict[str, Any]) -> int:
    from geoseg.errors import GeosegError
    from geoseg.inference import RunOptions
    from geoseg.pipeline import segment_file

    if "before" in task:
        sys.addaudithook(Death(*task["before"]))
    output, overwrite = Path(task["output"]), bool(task.get("overwrite"))
    options = RunOptions(
        device="cpu", precision="float32", engine="torch", block=BLOCK, staging=task.get("staging"), workers=1
    )
    confidence = output.with_name("confidence.tif")
    try:
        segment_file(
            task["scene"],
            output,
            model=model_of(task.get("seed", 0)),
            confidence=confidence,
            polygons=output.with_name("out.gpkg") if task.get("polygons") else None,
            run=options,
            overwrite=overwrite,
        )
    except GeosegError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def model_of(seed: int) -> Any:
    """Two small convolutions."""
    import torch
    from builders import small_card

    from geoseg.models import Model

    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 1))
    card = small_card(output_stride=8, receptive_field_px=8, halo_px=8, chip_px=144)
    return Model(network.eval(), card)


class Death:
    """Kills this process right before an action on a path; of a renaming, the new name counts."""

    def __init__(self, event: str, end: str, times: int) -> None:
        self.event, self.end, self.left = event, end, times

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != self.event:
            return
        path = arguments[1 if event == "os.rename" else 0]
        if isinstance(path, str | os.PathLike) and os.fspath(path).endswith(self.end):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
