from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from builders import RGB, TINY, pixels_of, tiny_model
from torch import nn

from geoseg.errors import GeosegError, InputError
from geoseg.inference import Backend, Predictor
from geoseg.inference.predictor import normalized_on
from geoseg.models import Model, load_model
from geoseg.raster.reader import Pixels

CPU = Backend("cpu", "float32")


def predictor_of(network: nn.Module, backend: Backend = CPU) -> Predictor:
    return Predictor(Model(network.eval(), tiny_model().card), backend)


def chip_of(bands: int = 3, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(bands, side, side)).astype(np.float32)


@pytest.mark.parametrize(("device", "precision"), [("tpu", "auto"), ("cpu", "int8")])
def test_unknown_devices_and_precisions_are_refused(device: str, precision: str) -> None:
    with pytest.raises(InputError, match=r"is unknown; use one of auto, "):
        Backend.resolve(device, precision)


def test_auto_is_resolved() -> None:
    backend = Backend.resolve()
    assert backend.device in ("cpu", "cuda")
    assert backend.precision in ("float32", "bfloat16")
    assert Backend.resolve("cpu", "float32") == CPU


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(3, 8, 1, bias=False),
        nn.Conv2d(3, 8, (3, 5), padding=(1, 2)),
        nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3),
        nn.Conv2d(3, 8, 3, padding="same"),
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_the_one_kernel_convolves_as_torch_does(convolution: nn.Conv2d) -> None:
    chip = chip_of()
    with torch.inference_mode():
        expected = convolution(torch.from_numpy(chip)[None])[0].numpy()
    np.testing.assert_allclose(predictor_of(convolution).logits(chip).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_bits_of_a_convolution_do_not_depend_on_size_or_threads(kernel: int) -> None:
    """torch alone takes another kernel below 20480 numbers, and for 1 x 1 on one thread."""
    torch.manual_seed(0)
    predictor = predictor_of(nn.Conv2d(48, 16, kernel))
    chip = chip_of(48, 64)
    whole = predictor.logits(chip).numpy()
    part = predictor.logits(np.ascontiguousarray(chip[:, :14, :11])).numpy()
    assert np.array_equal(part, whole[:, : part.shape[1], : part.shape[2]])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert np.array_equal(predictor.logits(chip).numpy(), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("classes", [2, 6, 11])
def test_bits_of_the_confidence_do_not_depend_on_the_window(classes: int) -> None:
    logits = 3 * torch.randn(1, classes, 37, 41).contiguous(memory_format=torch.channels_last)[0]
    predictor = predictor_of(nn.Identity())
    whole = predictor.reduce(logits, probabilities=True)
    for rows, cols in ((slice(0, 37), slice(3, 10)), (slice(36, 37), slice(40, 41)), (slice(1, 12), slice(0, 41))):
        for layout in (logits[:, rows, cols], logits[:, rows, cols].contiguous()):
            part = predictor.reduce(layout, probabilities=True)
            assert np.array_equal(part.confidence, whole.confidence[rows, cols])
            assert np.array_equal(part.probabilities, whole.probabilities[:, rows, cols])


def test_what_is_kept_of_logits() -> None:
    logits = torch.tensor([[[0.0, 5.0]], [[1.0, -5.0]], [[0.0, 0.0]]])  # (class, height, width)
    reduced = predictor_of(nn.Identity()).reduce(logits, probabilities=True)
    powers = np.exp(logits.numpy())
    expected = powers / powers.sum(0)
    assert reduced.channel.tolist() == [[1, 0]]
    assert reduced.channel.dtype == np.uint8
    np.testing.assert_allclose(reduced.confidence, expected.max(0), rtol=1e-6)
    np.testing.assert_allclose(reduced.probabilities, expected, rtol=1e-6)
    assert predictor_of(nn.Identity()).reduce(logits).probabilities is None


def test_it_survives_a_pickle() -> None:
    predictor = Predictor(tiny_model(), CPU)
    again = pickle.loads(pickle.dumps(predictor))
    assert np.array_equal(again.logits(chip_of(side=32)).numpy(), predictor.logits(chip_of(side=32)).numpy())


def test_bfloat16_is_near() -> None:
    chip = chip_of(side=32)
    exact = Predictor(tiny_model(), CPU).logits(chip).numpy()
    rough = Predictor(tiny_model(), Backend("cpu", "bfloat16")).logits(chip).numpy()
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_large_features_are_added_up_in_the_same_order_as_small_ones() -> None:
    torch.manual_seed(0)
    predictor = predictor_of(nn.Sequential(nn.Conv2d(384, 64, 3, padding=1)))
    chip = np.random.default_rng(0).normal(size=(384, 176, 176)).astype(np.float32)
    large, small = predictor.logits(chip), predictor.logits(np.ascontiguousarray(chip[:, :80, :80]))
    assert torch.equal(large[:, :78, :78], small[:, :78, :78])


class Small(nn.Module):
    """A network on a device that holds no more than so many pixels."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most, self.sizes = network, most, []

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        if chips.shape[0] * chips.shape[2] * chips.shape[3] > self.most:
            raise torch.OutOfMemoryError("too large")
        self.sizes.append(tuple(chips.shape[2:]))
        return self.network(chips)


def chips_of(count: int, side: int) -> list[Pixels]:
    measured = np.ones((side, side), np.bool_)
    measured[3:9, 5:50] = False
    return [Pixels(pixels_of((side, side), seed=seed), measured) for seed in range(count)]


@pytest.mark.parametrize("most", [4 * 128**2, 2 * 128**2, 128**2, 100**2, 76**2])
def test_too_little_memory_makes_smaller_batches_and_then_smaller_chips(most: int) -> None:
    """Where the margin is the receptive field, nothing else changes."""
    model, margin = tiny_model(), tiny_model().card.exact_halo_px
    whole = Predictor(model, CPU).predict(chips_of(4, 128), RGB, margin=margin).clone()
    small = Small(model.network, most)
    found = Predictor(Model(small, model.card), CPU).predict(chips_of(4, 128), RGB, margin=margin)
    assert torch.equal(found, whole)
    assert max(height * width for height, width in small.sizes) <= most


def test_no_memory_at_all_is_an_error_that_says_what_to_do() -> None:
    predictor = Predictor(Model(Small(tiny_model().network, 10), tiny_model().card), CPU)
    with pytest.raises(GeosegError, match=r"too little memory for one chip .*--device cpu"):
        predictor.predict(chips_of(1, 96), RGB, margin=32)


class Interrupted(list[Pixels]):
    """Chips of which a part is taken just before something else happens."""

    def __init__(self, chips: list[Pixels], meanwhile: Callable[[], object]) -> None:
        super().__init__(chips)
        self.meanwhile = meanwhile

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(key, slice) and key.start is None:
            self.meanwhile()
        return part


def test_two_threads_without_memory_lose_no_chip() -> None:
    """One comes to another size of batches while the other cuts its own."""
    model, margin = tiny_model(), tiny_model().card.exact_halo_px
    whole, short = Predictor(model, CPU), Predictor(Model(Small(model.network, 2 * 96**2), model.card), CPU)
    many, few = chips_of(6, 96), chips_of(4, 96)
    others: list[torch.Tensor] = []
    with ThreadPoolExecutor(1) as thread:

        def meanwhile() -> None:
            others.append(thread.submit(short.predict, few, RGB, margin=margin).result())

        found = short.predict(Interrupted(many, meanwhile), RGB, margin=margin)
    assert torch.equal(found, whole.predict(many, RGB, margin=margin))
    assert torch.equal(others[0], whole.predict(few, RGB, margin=margin))


class Blind(nn.Module):
    """A detector on a device that holds nothing."""

    def see(self, chips: torch.Tensor, least_score: float, with_logits: bool) -> None:
        raise torch.OutOfMemoryError("too large")


def test_a_detector_without_memory_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(GeosegError, match=r"too little memory for one chip of 96 .*smaller --chip.*--device cpu"):
        predictor_of(Blind()).see(chips_of(1, 96)[0], RGB, 0.5, with_logits=False)


@pytest.mark.parametrize("present", [(True, True, True), (True, False, True)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_a_device_normalizes_as_numpy_does(present: tuple[bool, ...], dtype: type) -> None:
    normalization = replace(RGB, present=present, offset=0.25)
    chips = [Pixels(chip.values[: sum(present)].astype(dtype), chip.valid) for chip in chips_of(2, 64)]
    if dtype == np.float32:
        chips[0].values[0, 20, 20:30] = np.nan
    expected = np.stack([normalization(*chip) for chip in chips])
    found = normalized_on(torch.device("cpu"), chips, normalization).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("architecture", TINY)
def test_openvino_computes_what_torch_does(architecture: str) -> None:
    pytest.importorskip("openvino")
    model = tiny_model(architecture)
    chip = chip_of(side=96)
    expected = Predictor(model, CPU).logits(chip).numpy()
    found = Predictor(model, Backend("cpu", "float32", "openvino")).logits(chip).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_ctrl_c_is_no_crash_after_several_networks() -> None:
    pytest.importorskip("openvino")
    script = """
import faulthandler, gc, os, signal, time
import torch
from geoseg.inference.engines import OpenVinoEngine
faulthandler.enable()
network = torch.nn.Conv2d(3, 2, 3, padding=1).eval()
engines = [OpenVinoEngine(network, 3, "float32") for _ in range(3)]
for engine in engines:
    engine(torch.zeros(1, 3, 32, 32))
del engine
while engines:  # the oldest first: what it had is what the next one would restore
    engines.pop(0)
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_auto_takes_openvino_on_the_cpu_where_it_is_installed() -> None:
    pytest.importorskip("openvino")
    assert Backend.resolve("cpu", card=tiny_model().card).engine == "openvino"
    assert Backend.resolve("cpu", card=load_model("spectral-index").card).engine == "torch"


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"engine": "onnxruntime"}, "'onnxruntime' cannot run this model; use torch or openvino"),
        ({"engine": "tensorrt"}, "Engine 'tensorrt' is unknown; use one of auto, torch"),
    ],
)
def test_engines_that_do_not_fit_are_refused(request_: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Backend.resolve(**request_, card=tiny_model().card)
