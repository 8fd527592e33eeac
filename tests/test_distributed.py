"""Blocks in real worker processes: on this machine, and of a dask cluster started by its own commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from block_tasks import Counts, Kills, Sleeps
from builders import tiny_model, write_rgb

from geoseg.errors import BlockError, GeosegError, InputError
from geoseg.grid import Block, ChipGrid
from geoseg.inference import RunOptions
from geoseg.inference import cluster as cluster_module
from geoseg.inference import crew as crew_module
from geoseg.inference import run as run_module
from geoseg.inference.cluster import backend_on
from geoseg.inference.machine import CPU_THREADS, GPU_THREADS, Machine, gpu_of, threads_of
from geoseg.inference.run import AHEAD, run_blocks
from geoseg.pipeline import segment_file

TESTS = Path(__file__).parent
BLOCKS = list(ChipGrid((60, 40), 10, 0).blocks())
FEW = BLOCKS[:6]
SECONDS = 30  # in which a run ends when it is told to, though its blocks would take a minute


def ignore(block: Block, result: object) -> None:
    pass


def run_options(**options: Any) -> RunOptions:
    return RunOptions(device="cpu", precision="float32", engine="torch", block=32, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rgb(tmp_path_factory.mktemp("scene") / "scene.tif")


@pytest.fixture(scope="module")
def expected(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Land cover computed by this process."""
    folder = tmp_path_factory.mktemp("expected")
    segment_file(scene, folder / "cover.tif", model=tiny_model(), run=run_options())
    return files_of(folder)


@contextmanager
def command(*arguments: object, **environment: str) -> Iterator[psutil.Process]:
    """A dask command, which is killed at the end."""
    process = psutil.Popen(
        [sys.executable, "-m", "dask", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scheduler_at(file: Path) -> Any:
    return command(
        "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--no-show", "--scheduler-file", file
    )


def worker_of(file: Path, **environment: str) -> Any:
    own = ("--no-nanny", "--no-dashboard", "--nthreads", CPU_THREADS, "--memory-limit", 0)
    return command("worker", "--host", "127.0.0.1", "--scheduler-file", file, *own, **environment)


def wait_until(reached: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Started:
    """A scheduler and two workers, in processes of their own; tests may start more workers, and kill all."""

    def __init__(self, file: Path, stack: ExitStack) -> None:
        self.file, self.stack = file, stack
        self.scheduler = stack.enter_context(scheduler_at(file))
        self.workers = [stack.enter_context(worker_of(file)) for _ in range(2)]
        wait_until(file.is_file)
        self.address = json.loads(file.read_text())["address"]
        self.wait_for(2)

    def count(self) -> int:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return len(client.nthreads())

    def wait_for(self, workers: int) -> None:
        wait_until(lambda: self.count() == workers)

    def start(self, **environment: str) -> psutil.Process:
        before = self.count()
        process = self.stack.enter_context(worker_of(self.file, **environment))
        self.wait_for(before + 1)
        return process


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with ExitStack() as stack:
        yield Started(tmp_path_factory.mktemp("cluster") / "scheduler.json", stack)


def test_a_worker_killed_midway_is_replaced_and_nothing_listens_beyond_this_machine(
    scene: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    listening: set[str] = set()
    killed: list[int] = []

    def run_and_kill(*arguments: Any, finished: Callable[[Block, int], None], **options: Any) -> None:
        def observe(block: Block, process: int) -> None:
            finished(block, process)
            seen.add(process)
            if len(seen) == 2 and not killed:
                listening.update(listening_addresses())
                os.kill(process, signal.SIGKILL)
                killed.append(process)

        run_blocks(*arguments, finished=observe, **options)

    monkeypatch.setattr("geoseg.inference.run.run_blocks", run_and_kill)
    # dask drops copies of what no task waits for: at once, so that the network may well be lost with the worker
    with dask.config.set({"distributed.scheduler.active-memory-manager.interval": "20ms"}):
        summary = segment_file(scene, tmp_path / "cover.tif", model=tiny_model(), run=run_options(workers=2))
    assert killed
    assert os.getpid() not in summary.blocks
    assert len(summary.blocks) >= 2
    assert listening == {"127.0.0.1"}
    assert files_of(tmp_path) == expected


def listening_addresses() -> set[str]:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [connection for process in processes for connection in process.net_connections("inet")]
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_a_running_cluster_gives_the_same_bytes(
    started: Started, scene: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    run = run_options(scheduler=str(started.file))
    summary = segment_file(scene, tmp_path / "cover.tif", model=tiny_model(), run=run)
    assert set(summary.blocks) == {worker.pid for worker in started.workers}
    assert files_of(tmp_path) == expected


def test_workers_never_hold_more_than_their_share(started: Started) -> None:
    taken = done = most = 0
    alive: Counter[int] = Counter()

    def source() -> Iterator[Block]:
        nonlocal taken
        for block in BLOCKS:
            taken += 1
            yield block

    def finished(block: Block, result: tuple[int, int]) -> None:
        nonlocal done, most
        process, now = result
        most, done = max(most, taken - done), done + 1
        alive[process] = max(alive[process], now)

    run_blocks(Counts(), source(), workers=1, finished=finished, scheduler=started.address)
    assert done == len(BLOCKS)
    assert most == AHEAD * CPU_THREADS * len(started.workers)
    assert alive == {worker.pid: CPU_THREADS for worker in started.workers}


def test_other_versions_are_refused_with_both_sides(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = crew_module.versions()
    monkeypatch.setattr(crew_module, "versions", lambda: ours | {"geoseg": "9.8.7"})
    with pytest.raises(InputError, match=rf"it has geoseg {ours['geoseg']}, and this process geoseg 9\.8\.7"):
        run_blocks(Counts(), FEW, workers=1, finished=ignore, scheduler=started.address)


def test_the_backend_is_settled_by_the_workers(started: Started) -> None:
    card = tiny_model().card
    backend, machine = backend_on(started.address, "cpu", "float32", "torch", card)
    assert (backend.precision, machine) == ("float32", Machine.here())
    with pytest.raises(InputError, match=r"Worker tcp://.* cannot compute: Device 'abacus' is unknown"):
        backend_on(started.address, "abacus", "auto", "auto", card)


def test_a_worker_of_another_kind_gets_no_blocks_and_is_refused_at_the_start(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    processes: Counter[int] = Counter()
    stranger: list[psutil.Process] = []

    def finished(block: Block, result: tuple[int, int]) -> None:
        if not stranger:
            stranger.append(started.start(ATEN_CPU_CAPABILITY="default"))
        processes[result[0]] += 1

    def source() -> Iterator[Block]:
        """Goes on until the stranger was looked at."""
        for number in range(10_000):
            if "gets no blocks" in caplog.text:
                return
            yield Block(number, 0, BLOCKS[0].window)

    run_blocks(Counts(), source(), workers=1, finished=finished, scheduler=started.address)
    assert set(processes) == {worker.pid for worker in started.workers}
    with pytest.raises(InputError, match=r"of 2 kinds.*tcp://.* and .*tcp://.*--device"):
        run_blocks(Counts(), FEW, workers=1, finished=ignore, scheduler=started.address)
    stranger[0].kill()
    started.wait_for(2)


def test_a_block_that_kills_its_workers_is_named(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "DEATHS", 2)
    done: list[Block] = []
    with pytest.raises(BlockError, match=r"rows 10:20, columns 20:30 failed: 2 workers died with it"):
        run_blocks(
            Kills((1, 2)),
            BLOCKS,
            workers=1,
            finished=lambda block, process: done.append(block),
            scheduler=started.address,
        )
    assert len(done) >= len(BLOCKS) - AHEAD * CPU_THREADS  # but those that were in the same worker and wait to be alone


def test_without_any_worker_left_the_run_ends(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PATIENCE_SECONDS", 1)
    last = started.start()
    with pytest.raises(GeosegError, match=r"All workers of tcp://.* are gone.*1 s.*finished blocks are kept"):
        run_blocks(Counts(), BLOCKS, workers=1, finished=lambda *_: last.kill(), scheduler=started.address)


def test_a_cluster_without_workers_is_refused(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "FIRST_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"has no workers.*dask worker tcp://"):
        run_blocks(Counts(), FEW, workers=1, finished=ignore, scheduler=started.address)


def test_a_scheduler_that_dies_ends_the_run(started: Started) -> None:
    started.start()
    with pytest.raises(GeosegError, match=r"The scheduler of tcp://.* is gone. Finished blocks are kept"):
        run_blocks(Counts(), BLOCKS, workers=1, finished=lambda *_: started.scheduler.kill(), scheduler=started.address)


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (b"", r"No dask scheduler answers at .*waited 1 s.*`dask scheduler`"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is no dask scheduler; start one"),
        (bytes(400), "is no dask scheduler; start one"),
    ],
)
def test_what_is_no_scheduler_is_refused_in_time(greeting: bytes, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        caller = thread.submit(server.accept)
        caller.add_done_callback(lambda future: future.result()[0].sendall(greeting))
        with pytest.raises(InputError, match=told):
            run_blocks(
                Counts(), FEW, workers=1, finished=ignore, scheduler=f"tcp://127.0.0.1:{server.getsockname()[1]}"
            )
        caller.result()[0].close()


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (f"tcp://127.0.0.1:{unused_port()}", "No dask scheduler answers at tcp://127.0.0.1"),
        (f"tls://127.0.0.1:{unused_port()}", "certificates"),
        ("gopher://127.0.0.1:1", "No dask scheduler answers at gopher://"),
        ("tcp://127.0.0.1", "No dask scheduler answers at"),
        ("missing.json", r"There is no scheduler file missing\.json.*dask scheduler --scheduler-file missing\.json"),
        (str(TESTS / "conftest.py"), r"conftest\.py is no scheduler file"),
        (str(TESTS), "is no scheduler file"),
    ],
    ids=["nobody", "without certificates", "no protocol", "no port", "no file", "another file", "a folder"],
)
def test_a_scheduler_that_cannot_be_used_is_named_with_the_remedy(
    scheduler: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=told):
        run_blocks(Counts(), FEW, workers=1, finished=ignore, scheduler=scheduler)


INTERRUPTED = """
import sys
from pathlib import Path

if __name__ == "__main__":  # workers start by importing this file
    from block_tasks import Sleeps
    from geoseg.grid import ChipGrid
    from geoseg.inference.run import run_blocks

    blocks = list(ChipGrid((60, 40), 10, 0).blocks())
    for _ in range(2):
        try:
            run_blocks(Sleeps(Path(sys.argv[1])), blocks, workers=2, finished=print)
        except KeyboardInterrupt:
            print("stopped", flush=True)
"""


def test_ctrl_c_and_sigterm_end_worker_processes_within_seconds(tmp_path: Path) -> None:
    script, folder = tmp_path / "interrupted.py", tmp_path / "began"
    script.write_text(INTERRUPTED)
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, script, folder],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: len(list(folder.iterdir())) == 2)
            workers = [psutil.Process(int(path.name)) for path in folder.iterdir()]
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to workers too
            began = time.monotonic()
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            assert time.monotonic() - began < SECONDS
            assert not any(worker.is_running() for worker in workers)
            wait_until(lambda: len(starting_workers(process.pid)) == 2)
            workers = starting_workers(process.pid)
            process.terminate()
            assert process.wait(SECONDS) == 128 + signal.SIGTERM
            assert not any(worker.is_running() for worker in workers)
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


def starting_workers(process: int) -> list[psutil.Process]:
    children = psutil.Process(process).children(recursive=True)
    return [child for child in children if "--multiprocessing-fork" in child.cmdline()]


def test_ctrl_c_does_not_wait_for_blocks_in_threads(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: any(tmp_path.iterdir()))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_blocks(Sleeps(tmp_path), FEW, workers=1, finished=ignore)
    assert time.monotonic() - began < SECONDS


def test_workers_take_gpus_in_turn() -> None:
    assert [gpu_of(worker, ["2", "3", "5"]) for worker in range(5)] == ["2", "3", "5", "2", "3"]
    assert [gpu_of(worker, ["0"]) for worker in range(2)] == ["0", "0"]


def test_a_gpu_is_kept_busy_by_more_threads() -> None:
    assert threads_of("cpu") == CPU_THREADS
    assert threads_of("cuda") == min(GPU_THREADS, os.cpu_count() or 1)


def test_a_machine_is_equal_to_itself_and_says_what_it_is() -> None:
    here = Machine.here()
    assert here == Machine.here("cpu", "torch")
    assert "torch" in str(here)
