"""Which workers of a cluster may compute, and how many blocks each."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import torch
from distributed import Worker

from geoseg.errors import GeosegError, InputError
from geoseg.inference.cluster import Cluster
from geoseg.inference.machine import Machine, gpu_of, listed, report, threads_of, versions, visible_gpus
from geoseg.inference.predictor import Backend

log = logging.getLogger(__name__)


class Crew:
    """The workers that may compute: of our versions and all of one kind, those that join later too.

    Another kind of machine rounds otherwise. A run does not start on two kinds, since no choice between them would be
    the user's; a worker of another kind that joins later is left out, so that it does not end the run.

    Attributes:
        threads: of each worker that may compute, by address; no more than work well with its device.
        left_out: addresses of those that may not.
    """

    def __init__(self, cluster: Cluster, backend: Backend) -> None:
        self.cluster, self.backend = cluster, backend
        self.threads: dict[str, int] = {}
        self.left_out: set[str] = set()
        self._asked: set[str] = set()
        self._answers: SimpleQueue[tuple[list[str], dict[str, Any]]] = SimpleQueue()
        self._places: dict[str, tuple[Any, ...]] = {}
        self._machine = self._first()

    def update(self) -> None:
        """Strike out workers that are gone, and take in those that joined and have told what they are.

        Raises:
            GeosegError: the scheduler is gone.
        """
        present = self._present()
        self.left_out &= present.keys()
        self._asked &= present.keys()
        self.threads = {worker: threads for worker, threads in present.items() if worker in self.threads}
        joined = [worker for worker in present if worker not in {*self.threads, *self.left_out, *self._asked}]
        if joined:  # they load torch first, for which nobody shall wait
            self._asked.update(joined)
            threading.Thread(target=self._inquire, args=(joined,), daemon=True).start()
        while not self._answers.empty():
            asked, reports = self._answers.get()
            self._asked.difference_update(asked)
            for worker in reports.keys() & present.keys():
                self._admit(worker, reports[worker], present)

    def _inquire(self, workers: list[str]) -> None:
        reports: dict[str, Any] = {}
        try:
            reports = self._reports(workers)
        except Exception:
            if self.cluster.client.status == "running":
                raise
            log.debug("The run ended before its new workers said what they are.")
        finally:
            self._answers.put((workers, reports))

    def _admit(self, worker: str, told: Any, present: Mapping[str, int]) -> None:
        misfit = _misfit(told) or ("" if _machine(told) == self._machine else f"it is {_machine(told)}")
        if misfit:
            self.left_out.add(worker)
            log.warning("Worker %s of %s gets no blocks: %s.", worker, self.cluster.name, misfit)
        else:
            self._take({worker: told}, present)

    def _first(self) -> Machine:
        """Take in the workers that are there.

        Raises:
            InputError: one does not fit, or they are of several kinds.
        """
        present = self._present()
        reports = self._reports(list(present))
        by_kind: dict[str, list[str]] = {}
        for worker, told in reports.items():
            misfit = _misfit(told)
            if misfit:
                raise InputError(f"Worker {worker} of {self.cluster.name} cannot take part: {misfit}.")
            by_kind.setdefault(str(_machine(told)), []).append(worker)
        if len(by_kind) > 1:
            raise InputError(
                f"The workers of {self.cluster.name} are of {len(by_kind)} kinds, which round differently: "
                f"{listed(by_kind)}. Use workers of one kind, or --device cpu where only their GPUs differ."
            )
        if not by_kind:
            raise InputError(
                f"The workers of {self.cluster.name} do not answer; see what they log, and run the same again."
            )
        self._take(reports, present)
        return _machine(next(iter(reports.values())))

    def _present(self) -> dict[str, int]:
        client = self.cluster.client
        if client.status == "running":
            with suppress(OSError):  # among them distributed's own, where the connection just broke
                most = threads_of(self.backend.device)
                return {worker: min(threads, most) for worker, threads in client.nthreads().items()}
        raise GeosegError(
            f"The scheduler of {self.cluster.name} is gone. Finished blocks are kept; run the same again."
        )

    def _reports(self, workers: list[str]) -> dict[str, Any]:
        """What workers say of themselves, or the exception."""
        if self.cluster.is_own and not self.cluster.is_here:
            self._ask(_settle, visible_gpus() if self.backend.device == "cuda" else [], workers=workers)
        return self._ask(report, self.backend.device, self.backend.engine, workers=workers)

    def _ask(self, function: Callable[..., Any], *arguments: Any, workers: list[str]) -> dict[str, Any]:
        """Answers by worker, or exceptions; nothing of those that are gone meanwhile."""
        answers: dict[str, Any] = {}
        with suppress(OSError):
            answers = self.cluster.client.run(function, *arguments, workers=workers, on_error="return")
        return {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}

    def _take(self, reports: Mapping[str, Any], present: Mapping[str, int]) -> None:
        """Workers that share processors share them evenly; dask alone would have each use one thread of torch.

        A worker that joins later gets its share, and those that are there keep theirs: threads that compute and
        networks that were compiled hold on to the number that they began with.
        """
        places = {worker: tuple(told["place"]) for worker, told in reports.items()}
        self._places = {worker: place for worker, place in self._places.items() if worker in present} | places
        crowds = Counter(self._places.values())
        shares = {worker: max(1, told["cores"] // crowds[places[worker]]) for worker, told in reports.items()}
        if not self.cluster.is_here:
            self._ask(_use_cores, shares, workers=list(shares))
        self.threads |= {worker: present[worker] for worker in reports}


def _misfit(told: Any) -> str:
    """Why a worker cannot take part, or nothing."""
    ours = versions()
    if isinstance(told, Exception):
        return f"asked for its kind, it says {str(told) or type(told).__name__!r}; it needs geoseg {ours['geoseg']}"
    theirs = told["versions"]
    if theirs == ours:
        return ""
    differ = [name for name in ours if theirs[name] != ours[name]]
    there, here = (", ".join(f"{name} {side[name]}" for name in differ) for side in (theirs, ours))
    return f"it has {there}, and this process {here}; install the same on both sides"


def _machine(told: Mapping[str, Any]) -> Machine:
    return Machine(**told["machine"])


def _settle(gpus: list[str], dask_worker: Worker) -> None:
    """First thing in a process of our own: take a GPU, and leave Ctrl-C, which reaches us too, to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(int(dask_worker.name), gpus)


def _use_cores(shares: Mapping[str, int], dask_worker: Worker) -> None:
    torch.set_num_threads(shares[dask_worker.address])
