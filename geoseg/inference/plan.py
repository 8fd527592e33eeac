"""What a run will do, settled before it starts: chips, blocks, device, precision; and never `auto`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoseg.errors import InputError
from geoseg.grid import ChipGrid
from geoseg.inference.predictor import Backend
from geoseg.models.card import ModelCard

DEFAULT_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; what is None is chosen from the card and the machine.

    Attributes:
        aoi: vector file; only pixels within its polygons are segmented and written.
        resample: work at the card's resolution where the scene's is out of its range.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        chip: side of the chips in pixels.
        halo: pixels of context on each side of a core, or "exact" for the whole receptive field.
        block: side of a block in pixels; rounded down to whole cores, at least one.
        workers: processes that compute blocks.
    """

    aoi: Path | None = None
    resample: bool = False
    device: str = "auto"
    precision: str = "auto"
    chip: int | None = None
    halo: int | Literal["exact"] | None = None
    block: int | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("chip", "block", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is 1 or more, not {value}.")
        if isinstance(self.halo, int) and self.halo < 0:
            raise InputError(f"--halo is 0 or more, or 'exact', not {self.halo}.")
        if isinstance(self.halo, str) and self.halo != "exact":
            raise InputError(f"--halo is a number of pixels or 'exact', not {self.halo!r}.")


@dataclass(frozen=True, slots=True)
class Plan:
    """A grid and a backend, resolved.

    Attributes:
        grid: where chips and blocks lie.
        backend: device and precision.
        is_exact: the halo covers the receptive field, and chips are cropped: chip and halo do not change the pixels.
    """

    grid: ChipGrid
    backend: Backend
    is_exact: bool

    @classmethod
    def of(cls, shape: tuple[int, int], card: ModelCard, options: RunOptions) -> Plan:
        """The plan for a scene of `shape` (rows, columns).

        Raises:
            InputError: chip and halo leave no core, do not fit the output stride, or the device is missing.
        """
        stride = card.output_stride
        halo = card.exact_halo_px if options.halo == "exact" else card.halo_px if options.halo is None else options.halo
        chip = options.chip or max(_smallest_chip(shape, card, halo), 2 * halo + stride)
        for name, value in (("Halo", halo), ("Chip", chip)):  # halo first: a chip that nobody named depends on it
            if value % stride:
                fits = -(-value // stride) * stride
                raise InputError(f"{name} {value} is no multiple of the model's output stride {stride}; use {fits}.")
        ramp = min(card.ramp_px, 2 * halo, chip - 2 * halo) // 2 * 2
        grid = ChipGrid.of(
            shape, chip=chip, halo=halo, output_stride=stride, ramp=ramp, block=options.block or DEFAULT_BLOCK
        )
        is_exact = card.position_independent and ramp == 0 and halo >= card.receptive_field_px
        return cls(grid, Backend.resolve(options.device, options.precision), is_exact)

    @property
    def options(self) -> dict[str, Any]:
        """What was resolved, but for what no pixel can depend on: workers, blocks, paths."""
        grid = {"chip": self.grid.chip, "halo": self.grid.halo, "ramp": self.grid.ramp}
        return {**grid, "device": self.backend.device, "precision": self.backend.precision}

    @property
    def told(self) -> dict[str, Any]:
        """The options that the pixels depend on, for the tags: an exact halo makes the answer one for all chips."""
        return {**self.options, "chip": "any", "halo": "exact"} if self.is_exact else self.options


def _smallest_chip(shape: tuple[int, int], card: ModelCard, halo: int) -> int:
    """The card's chip, or one that just holds a smaller scene."""
    core = -(-max(shape) // card.output_stride) * card.output_stride
    return min(card.chip_px, core + 2 * halo)
