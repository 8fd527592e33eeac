"""What decides the bits of an answer beside the request: machines of one kind give the same."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from dask.system import CPU_COUNT

from geoseg.errors import InputError

CPU_THREADS = 2  # per process: one block is read or written while the network works on the other
GPU_THREADS = 8  # a GPU is fast: more blocks must be read and written meanwhile
# What oneDNN's bfloat16 kernels are chosen by; older versions of torch do not know all.
CPU_FEATURES = {"bfloat16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine.

    Attributes:
        cpu: architecture, and the instructions that torch's kernels use.
        device: name of the CUDA device, or "cpu" where none is used.
        engine: what runs the network, with its version.
    """

    cpu: str
    device: str
    engine: str

    @classmethod
    def here(cls, device: str = "cpu", engine: str = "torch") -> Machine:
        """The kind of this machine, for a network on `device` ("cpu" or "cuda") in `engine` (a package).

        Raises:
            InputError: there is no such device.
            PackageNotFoundError: the engine is not installed.
        """
        return cls(_cpu(), _device(device), _engine(engine))

    def __str__(self) -> str:
        return f"{self.cpu}, {self.device}, {self.engine}"


def versions() -> dict[str, str]:
    """What two processes must have in common to work on one scene."""
    torch_version = str(torch.__version__).partition("+")[0]  # +cu128 is a matter of the machine that computes
    python = ".".join(platform.python_version_tuple()[:2])
    return {"geoseg": version("geoseg"), "python": python, "torch": torch_version}


def report(device: str, engine: str) -> dict[str, Any]:
    """What a worker says of itself, in types that any version of geoseg can read."""
    return {
        "versions": versions(),
        "machine": asdict(Machine.here(device, engine)),
        "place": (socket.gethostname(), *_processors()),
        "cores": CPU_COUNT,  # what the container or the batch system allows
    }


def listed(kinds: Mapping[str, Sequence[str]]) -> str:
    """Kinds with some of their workers."""
    return " and ".join(
        f"'{kind}' ({', '.join(workers[:3])}{f' and {len(workers) - 3} more' if len(workers) > 3 else ''})"
        for kind, workers in kinds.items()
    )


def threads_of(device: str) -> int:
    """Blocks that a process works on at once."""
    return CPU_THREADS if device == "cpu" else min(GPU_THREADS, os.cpu_count() or 1)


def gpu_of(worker: int, gpus: list[str]) -> str:
    """The GPU of a worker, by number: each has its own, until there are more workers than GPUs."""
    return gpus[worker % len(gpus)]


def visible_gpus() -> list[str]:
    """The GPUs of this machine that we may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _cpu() -> str:
    features = [name for name, check in CPU_FEATURES.items() if getattr(torch.cpu, check, lambda: False)()]
    return " ".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *features])


def _device(device: str) -> str:
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device there; use --device cpu, or workers with a GPU")
    return torch.cuda.get_device_name()


def _engine(engine: str) -> str:
    names = dict.fromkeys(("torch", engine))  # torch reduces the logits of every engine
    return " and ".join(f"{name} {torch.__version__ if name == 'torch' else version(name)}" for name in names)


def _processors() -> list[int]:
    """Those that this process may run on; workers that share them share their cores."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else []
