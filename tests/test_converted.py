"""Converted networks come out of the cache as they went in, and only for the network they were made from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("openvino")
from geoseg.inference.converted import FILE, KEPT, converted
from geoseg.inference.engines import OpenVinoEngine

CHIPS = torch.randn(1, 2, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


class Small(nn.Module):
    def __init__(self, seed: int = 0, power: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.power = nn.Conv2d(2, 3, 3, padding=1), power

    def forward(self, chips: Tensor) -> Tensor:
        features: Tensor = self.conv(chips)
        return features**self.power


def answer(network: nn.Module) -> np.ndarray:
    return OpenVinoEngine(network.eval(), 2, "float32")(CHIPS).numpy().copy()


def test_a_network_from_the_cache_answers_with_the_same_bits(cache: Path) -> None:
    first = answer(Small())
    assert len(list(cache.glob(f"*/{FILE}"))) == 1
    assert np.array_equal(answer(Small()), first)
    assert np.allclose(first, Small()(CHIPS).detach().numpy(), atol=1e-5)
    assert len(list(cache.iterdir())) == 1


def test_it_is_read_not_converted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    first = answer(Small())
    monkeypatch.delattr(openvino, "convert_model")
    assert np.array_equal(answer(Small()), first)


def test_other_weights_and_other_code_are_other_networks(cache: Path) -> None:
    answers = [answer(Small()), answer(Small(seed=1)), answer(Small(power=2))]
    assert len(list(cache.iterdir())) == 3
    assert np.allclose(answers[2], Small(power=2)(CHIPS).detach().numpy(), atol=1e-5)
    assert not np.allclose(answers[0], answers[1])


@pytest.mark.parametrize(("kind", "shape", "kept"), [("buffer", (3, 1, 1), 0), ("", (3, 4, 1), 0), ("", (3, 1, 1), 2)])
def test_what_the_trace_does_not_tell_is_not_kept(
    cache: Path, kind: str, shape: tuple[int, int, int], kept: int
) -> None:
    class Shifted(Small):
        def __init__(self, shift: float) -> None:
            super().__init__()
            if kind == "buffer":
                self.register_buffer("shift", torch.full(shape, shift), persistent=False)
            else:
                self.shift = torch.full(shape, shift)

        def forward(self, chips: Tensor) -> Tensor:
            return super().forward(chips) + self.shift.mean(1, keepdim=True)

    difference = answer(Shifted(3.0)) - answer(Shifted(1.0))
    assert np.allclose(difference, 2.0, atol=1e-5)
    assert len(list(cache.glob("*"))) == kept


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_file_is_replaced(cache: Path, suffix: str) -> None:
    first = answer(Small())
    [file] = cache.glob(f"*/*{suffix}")
    length = file.stat().st_size
    os.truncate(file, length // 2)
    assert np.array_equal(answer(Small()), first)
    assert file.stat().st_size > 0.9 * length


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    first = answer(Small())
    shutil.rmtree(cache.parent)
    cache.parent.write_text("a file")
    assert np.array_equal(answer(Small()), first)


def test_the_oldest_go(cache: Path) -> None:
    for seed in range(KEPT + 2):
        converted(Small(seed).eval(), 2)
    assert len(list(cache.iterdir())) == KEPT
