"""What a run will do, settled before it starts: chips, blocks, device, precision, engine, memory; and never `auto`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

from geoseg.errors import InputError
from geoseg.grid import ChipGrid
from geoseg.inference.machine import threads_of
from geoseg.inference.memory import Memory, block_bytes, network_bytes
from geoseg.inference.predictor import Backend
from geoseg.models import Model, ModelCard

DEFAULT_BLOCK = 2048
MOST_HALO = 1.15  # chip / core from which on a larger chip is taken, as far as LARGEST_CHIP
LARGEST_CHIP = 2048
FIT = 1.25  # by how much a core may be longer or shorter than wanted, so that cores fit the scene
GB = 1e9


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; what is None is chosen from the card and the machine.

    Attributes:
        aoi: vector file; only pixels within its polygons are segmented and written.
        resample: work at the card's resolution where the scene's is out of its range.
        pool: the model sees means of pool x pool pixels; what its card says of the scene's resolution where None.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        chip: side of the chips in pixels.
        halo: pixels of context on each side of a core, or "exact" for the whole receptive field.
        block: side of a block in pixels; rounded down to whole cores, at least one.
        workers: processes that compute blocks.
        engine: auto, torch, openvino or onnxruntime.
        memory_gb: what the run may hold in memory on this machine, in units of 10^9 bytes.
        scheduler: address or scheduler file of a dask cluster that computes the blocks.
        staging: folder or URL (s3://...) that keeps finished blocks; beside the output where None.
    """

    aoi: str | Path | None = None
    resample: bool = False
    pool: int | None = None
    device: str = "auto"
    precision: str = "auto"
    chip: int | None = None
    halo: int | Literal["exact"] | None = None
    block: int | None = None
    workers: int = 1
    engine: str = "auto"
    memory_gb: float | None = None
    scheduler: str | None = None
    staging: str | None = None

    def __post_init__(self) -> None:
        for name in ("pool", "chip", "block", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is 1 or more, not {value}.")
        if isinstance(self.halo, int) and self.halo < 0:
            raise InputError(f"--halo is 0 or more, or 'exact', not {self.halo}.")
        if isinstance(self.halo, str) and self.halo != "exact":
            raise InputError(f"--halo is a number of pixels or 'exact', not {self.halo!r}.")
        if self.memory_gb is not None and not 0 < self.memory_gb < float("inf"):
            raise InputError(f"--memory is a positive number of GB, not {self.memory_gb}.")


@dataclass(frozen=True, slots=True)
class Load:
    """What a run reads and writes for each pixel.

    Attributes:
        pixel_bytes: of all bands of the scene, as stored.
        layers: uint8 bands that are written.
        floats: float32 values that are kept until they are encoded.
    """

    pixel_bytes: int
    layers: int = 1
    floats: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A grid and a backend, resolved.

    Attributes:
        grid: where chips and blocks lie.
        backend: device, precision and engine.
        is_exact: the halo covers the receptive field, and chips are cropped: chip and halo do not change the pixels.
        workers: processes that compute blocks on this machine.
    """

    grid: ChipGrid
    backend: Backend
    is_exact: bool
    workers: int = 1

    @classmethod
    def of(
        cls, shape: tuple[int, int], card: ModelCard, options: RunOptions, *, backend: Backend | None = None
    ) -> Plan:
        """The plan for a scene of `shape` (rows, columns).

        Args:
            shape: of the scene.
            card: of the model.
            options: what was asked for.
            backend: where other machines compute: what the request comes to there.

        Raises:
            InputError: chip and halo leave no core, do not fit the output stride, or the device is missing; or an exact
                halo is asked for where none is, as the network looks at the whole chip; or the model takes prompts.
        """
        card.check_has_classes()
        stride = card.output_stride
        if options.halo == "exact" and not card.position_independent:
            raise InputError(
                f"Model {card.name} looks at the whole chip, so that no halo is exact; give --halo a number of pixels, "
                f"or leave it out for the card's {card.halo_px}."
            )
        halo = card.exact_halo_px if options.halo == "exact" else card.halo_px if options.halo is None else options.halo
        if card.fixed_chip and options.chip not in (None, card.chip_px):
            raise InputError(f"Model {card.name} takes chips of {card.chip_px} px only, not {options.chip}.")
        chip = options.chip or _default_chip(shape, card, halo)
        for name, value in (("Halo", halo), ("Chip", chip)):  # halo first: a chip that nobody named depends on it
            if value % stride:
                fits = -(-value // stride) * stride
                raise InputError(f"{name} {value} is no multiple of the model's output stride {stride}; use {fits}.")
        ramp = min(card.ramp_px, 2 * halo, chip - 2 * halo) // 2 * 2
        grid = ChipGrid.of(
            shape, chip=chip, halo=halo, output_stride=stride, ramp=ramp, block=options.block or DEFAULT_BLOCK
        )
        is_exact = card.position_independent and ramp == 0 and halo >= card.receptive_field_px
        backend = backend or Backend.resolve(options.device, options.precision, options.engine, card=card)
        return cls(grid, backend, is_exact, options.workers)

    def within(self, options: RunOptions, model: Model, load: Load) -> Plan:
        """This plan, with blocks and then chips made smaller until its memory is what the options allow.

        What the options name stays as it is.

        Raises:
            InputError: it cannot be done; the message has what is needed, and a chip that would fit.
        """
        if (budget := options.memory_gb) is None:
            return self
        if model.card.fixed_chip:
            options = replace(options, chip=model.card.chip_px)
        for plan in self._smaller(options):
            if plan.memory(model, load).total <= budget * GB:
                return plan
        needs = self.memory(model, load).total / GB
        hint = self._that_fits(options, model, load)
        raise InputError(
            f"Chips of {self.grid.chip} px and blocks of {self.grid.block_side} px need about {needs:.2f} GB with "
            f"{self.workers} worker{'s' * (self.workers > 1)}, --memory allows {budget:g}; {hint}"
        )

    def memory(self, model: Model, load: Load) -> Memory:
        """Expected peak of the memory of the run's processes on this machine."""
        held = block_bytes(self.grid, pixel_bytes=load.pixel_bytes, layers=load.layers, floats=load.floats)
        network = network_bytes(model, self.grid.chip, self.backend.engine) if self.backend.device == "cpu" else 0
        return Memory(network, held, threads_of(self.backend.device), self.workers)

    @property
    def computed_pixels(self) -> int:
        """Pixels that go through the network if no chip is left out."""
        return _computed(self.grid.shape, self.grid.core, self.grid.halo)

    @property
    def options(self) -> dict[str, Any]:
        """What was resolved, but for what no pixel can depend on: workers, blocks, paths."""
        grid = {"chip": self.grid.chip, "halo": self.grid.halo, "ramp": self.grid.ramp}
        backend = {"device": self.backend.device, "precision": self.backend.precision, "engine": self.backend.engine}
        return {**grid, **backend}

    @property
    def told(self) -> dict[str, Any]:
        """The options that the pixels depend on, for the tags: an exact halo makes the answer one for all chips."""
        return {**self.options, "chip": "any", "halo": "exact"} if self.is_exact else self.options

    def _smaller(self, options: RunOptions) -> Iterator[Plan]:
        """This plan, and others in the order to be tried: small chips waste the most, so come last."""
        for chip in [self.grid.chip] if options.chip else _halved(self.grid):
            core = chip - 2 * self.grid.halo
            blocks = [self.grid.block_side] if options.block else [DEFAULT_BLOCK, 1024, 512, 256, core]
            for block in blocks:
                if block >= core:
                    yield self._with(chip, block)

    def _with(self, chip: int, block: int) -> Plan:
        grid = self.grid
        ramp = min(grid.ramp, chip - 2 * grid.halo) // 2 * 2
        cut = ChipGrid.of(
            grid.shape, chip=chip, halo=grid.halo, output_stride=grid.output_stride, ramp=ramp, block=block
        )
        return replace(self, grid=cut)

    def _that_fits(self, options: RunOptions, model: Model, load: Load) -> str:
        free = replace(options, chip=self.grid.chip if model.card.fixed_chip else None, block=None)
        for plan in self._smaller(free):
            needs = plan.memory(model, load).total / GB
            if needs <= (options.memory_gb or 0):
                return f"--chip {plan.grid.chip} --block {plan.grid.block_side} would fit."
        return f"no chip would fit; the smallest, --chip {plan.grid.chip}, needs {needs:.2f} GB."


def _default_chip(shape: tuple[int, int], card: ModelCard, halo: int) -> int:
    """The card's chip or, where a larger halo takes too much of it, a longer one; fitted to the scene."""
    if card.fixed_chip:
        return card.chip_px
    stride = card.output_stride
    longer = max(little_waste(halo, stride), 3 * halo) if halo > card.halo_px else 0  # never a core below the halo
    nominal = max(card.chip_px, longer, 2 * halo + stride) - 2 * halo
    whole = -(-max(shape) // stride) * stride
    if whole <= nominal:
        return whole + 2 * halo
    cores = range(max(stride, int(nominal / FIT) // stride * stride), int(nominal * FIT) + 1, stride)
    best = min(cores, key=lambda core: (_computed(shape, core, halo), -core))
    return best + 2 * halo


def _computed(shape: tuple[int, int], core: int, halo: int) -> int:
    """Pixels that go through the network; the last chips overhang, by much where the core does not fit the scene."""
    return prod(-(-length // core) for length in shape) * (core + 2 * halo) ** 2


def little_waste(halo: int, stride: int) -> int:
    """The smallest chip that is at most MOST_HALO times its core, but LARGEST_CHIP at most."""
    chip = -(-ceil(2 * halo * MOST_HALO / (MOST_HALO - 1)) // stride) * stride
    return min(chip, LARGEST_CHIP // stride * stride)


def _halved(grid: ChipGrid) -> Iterator[int]:
    """The chip, and those of half its core, a quarter of it, and so on."""
    core = grid.core
    while core >= grid.output_stride:
        yield core + 2 * grid.halo
        core = core // 2 // grid.output_stride * grid.output_stride
