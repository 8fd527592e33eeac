"""Clusters that compute blocks: threads or processes of this machine, or a running dask cluster."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
from distributed import Client, LocalCluster, Security, connect

from geoseg.errors import GeosegError, InputError
from geoseg.inference.machine import CPU_THREADS, Machine, listed
from geoseg.inference.predictor import Backend
from geoseg.models import ModelCard

CONNECT_SECONDS = 5.0  # in which a scheduler answers
FIRST_SECONDS = 4.0  # in which its first worker shows up
START_SECONDS = 120.0  # in which processes on this machine start
POLL_SECONDS = 0.05
ABANDON_SECONDS = 1.0  # that a block in work is waited for when the user stops the run
LOOPBACK = "127.0.0.1"
REMEDY = (
    "start one with `dask scheduler` and give the address that it prints; "
    "tls:// also needs the certificates in dask's configuration (distributed.comm.tls)"
)
LOGGERS = ("distributed", "tornado.application", "asyncio")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that we are connected to.

    Attributes:
        client: the connection.
        name: of it in messages.
        is_own: made for this run, on this machine.
        is_here: its worker is this very process.
    """

    client: Client
    name: str
    is_own: bool = False
    is_here: bool = False


@contextmanager
def open_cluster(scheduler: str | None, *, workers: int, threads: int) -> Iterator[Cluster]:
    """The cluster of a scheduler, or else one on this machine, which ends with the context.

    Args:
        scheduler: address or scheduler file; None for this machine.
        workers: processes on this machine; 1 for this process.
        threads: blocks at once, per process on this machine.

    Raises:
        InputError: the scheduler cannot be reached, or has no workers.
    """
    with _no_chatter(), _orderly_end():
        opened = _local(workers, threads) if scheduler is None else _running(scheduler)
        with opened as cluster:
            yield cluster


def backend_on(scheduler: str, device: str, precision: str, engine: str, card: ModelCard) -> tuple[Backend, Machine]:
    """What the request comes to on the workers of a cluster, and their kind: this process may well have no GPU.

    Raises:
        InputError: the scheduler cannot be reached, has no workers, or they differ, or do not have what was asked for.
    """
    with open_cluster(scheduler, workers=0, threads=0) as cluster:
        asked = cluster.client.run(Backend.resolve, device, precision, engine, card=card, on_error="return")
        backend = _common(asked, cluster.name)
        machines = cluster.client.run(Machine.here, backend.device, backend.engine)
    return backend, next(iter(machines.values()))  # the crew sees to it that all are of this kind


def _common(asked: Mapping[str, Backend | Exception], cluster: str) -> Backend:
    by_backend: dict[Backend, list[str]] = {}
    for worker, backend in asked.items():
        if isinstance(backend, Exception):
            raise InputError(f"Worker {worker} of {cluster} cannot compute: {backend}")
        by_backend.setdefault(backend, []).append(worker)
    if len(by_backend) > 1:
        kinds = {f"{b.device} {b.precision} {b.engine}": workers for b, workers in by_backend.items()}
        raise InputError(
            f"The workers of {cluster} would compute in {len(kinds)} ways: {listed(kinds)}. "
            "Say which with --device, --precision and --engine, or use workers of one kind."
        )
    return next(iter(by_backend))


@contextmanager
def _running(scheduler: str) -> Iterator[Cluster]:
    address = _address(scheduler)
    try:
        with ThreadPoolExecutor(1) as other:  # this thread may have an event loop of its own, as in a notebook
            other.submit(asyncio.run, asyncio.wait_for(_shake_hands(address), CONNECT_SECONDS)).result()
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (MemoryError, struct.error) as error:  # another protocol's first bytes, read as the size of a message
        raise InputError(f"What answers at {address} is no dask scheduler; {REMEDY}.") from error
    except (OSError, ValueError, TypeError, ImportError) as error:  # TypeError: tls:// without certificates
        reason = str(error) or f"waited {CONNECT_SECONDS:.0f} s"
        raise InputError(f"No dask scheduler answers at {address} ({reason}); {REMEDY}.") from error
    with client:
        if not _see_workers(client, 1, FIRST_SECONDS):
            raise InputError(
                f"The cluster at {address} has no workers (waited {FIRST_SECONDS:.0f} s). Start some with "
                f"`dask worker {address} --nworkers 1 --nthreads {CPU_THREADS}`."
            )
        yield Cluster(client, address)


async def _shake_hands(address: str) -> None:
    """Client waits forever for the answer of a server that is no scheduler; this can be given up."""
    connection = await connect(address, **Security().get_connection_args("client"))
    connection.abort()


def _address(scheduler: str) -> str:
    if "://" in scheduler:
        return scheduler
    path = Path(scheduler)
    try:
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
    except FileNotFoundError:
        raise InputError(
            f"There is no scheduler file {path}. `dask scheduler --scheduler-file {path}` writes it; "
            "an address looks like tcp://host:8786."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no scheduler file ({error!r}); `dask scheduler` writes them.") from error
    return str(address)


def _see_workers(client: Client, count: int, seconds: float) -> bool:
    """Wait until so many are there, or not any longer."""
    deadline = time.monotonic() + seconds
    while len(client.nthreads()) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@contextmanager
def _local(workers: int, threads: int) -> Iterator[Cluster]:
    """A cluster on this machine that no other machine can reach."""
    quiet = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.scheduler.allowed-failures": 0,  # run_blocks itself gives a block to another worker
        "distributed.admin.log-format": "%(message)s",
    }
    processes, others = workers > 1, set(active_children())
    dashboard = f"{LOOPBACK}:0"  # None would not turn the status pages off, but show them on every network
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=0,  # they start below, where Ctrl-C does no harm
            threads_per_worker=threads,
            processes=processes,
            host=LOOPBACK if processes else None,
            protocol="tcp://" if processes else "inproc://",
            dashboard_address=dashboard,
            worker_dashboard_address=dashboard,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        try:
            cluster.scale(workers)
            if not _see_workers(client, workers, START_SECONDS):
                raise GeosegError(
                    f"{workers} processes did not start within {START_SECONDS:.0f} s; try fewer --workers."
                )
            yield Cluster(client, "this machine", is_own=True, is_here=not processes)
        except Exception:
            raise
        except BaseException:
            _abandon(cluster, set(active_children()) - others)
            raise


def _abandon(cluster: LocalCluster, processes: Iterable[BaseProcess]) -> None:
    """End workers without waiting for their blocks, half a minute as they would, or for processes that still start."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they would tell of processes that did not start

    async def close() -> None:
        closing = asyncio.gather(*(worker.close(timeout=ABANDON_SECONDS) for worker in cluster.workers.values()))
        await asyncio.sleep(0)  # from now on a process that ends is not replaced
        for process in processes:
            process.kill()
        await closing

    cluster.sync(close)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM, which batch systems send, unwinds as Ctrl-C does: worker processes and their folders go too."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)  # the exit code that a shell gives it

    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _no_chatter() -> Iterator[None]:
    """distributed sets its loggers to INFO, which would reach the user; `silence_logs` misses the root's handlers."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
