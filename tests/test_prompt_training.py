"""What a promptable network learns from: parts of labels, and clicks as users make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prompt_networks import SameColor, tiny_promptable
from scipy import ndimage
from test_prompts import scene

from geoseg.grid import Window
from geoseg.models.promptable import NEGATIVE, POSITIVE, Masks
from geoseg.prompts.follow import Mask, overlap
from geoseg.prompts.judge import WAYS, Scene, judge, means
from geoseg.prompts.parts import PartChips, PartScene, PartSource
from geoseg.prompts.recipe import candidates_loss, card, halved, loss_of
from geoseg.prompts.recipe import overlap as iou
from geoseg.prompts.simulate import box_of, corrected, correction, first_point, first_prompts, worst_mistake
from geoseg.training.augment import Augmentation


def parts_scene(side: int = 200) -> tuple[PartScene, np.ndarray]:
    """Squares of class 1 and a disk of class 2 whose pixels are their class times 60."""
    labels = np.zeros((side, side), np.uint8)
    labels[20:60, 30:70] = labels[20:60, 90:120] = 1
    rows, cols = np.indices(labels.shape)
    labels[(rows - 140) ** 2 + (cols - 100) ** 2 < 30**2] = 2
    return PartScene.of(np.repeat(labels[None] * 60, 3, 0), labels, [1, 2], 0.5), labels


def test_parts_are_those_of_scipy_and_classes_stay_apart() -> None:
    made, labels = parts_scene()
    assert made.kinds.tolist() == [1, 1, 2]
    assert made.boxes.tolist() == [[20, 30, 60, 70], [20, 90, 60, 120], [111, 71, 170, 130]]
    for number, box in enumerate(made.boxes, 1):
        part = made.numbers[0] == number
        assert ndimage.find_objects(part.astype(int))[0] == (slice(box[0], box[2]), slice(box[1], box[3]))
    assert ((made.numbers[0] > 0) == (labels > 0)).all()
    assert [numbers.shape for numbers in made.numbers] == [(200, 200), (100, 100), (50, 50), (25, 25)]


def test_chips_show_their_parts_where_they_are() -> None:
    made, _ = parts_scene()
    chips = PartChips([PartSource([made], 1.0, {1: 1.0, 2: 1.0})], 30, 64, 3, 3, Augmentation.none())
    for i in range(30):
        pixels, parts = chips[i]
        assert parts.shape == (3, 64, 64)
        for part in parts:
            inside = part & ~torch.from_numpy(ndimage.binary_dilation(~part.numpy(), iterations=2))
            values = pixels[0][inside]
            assert part.sum() >= 24
            assert values.numel() == 0 or 0.2 < values.max() < values.min() + 0.05
        again = chips[i]
        assert torch.equal(pixels.nan_to_num(), again[0].nan_to_num())
        assert torch.equal(parts, again[1])


def test_the_part_that_a_chip_is_drawn_for_comes_first() -> None:
    labels = np.zeros((120, 120), np.uint8)
    labels[40:60, 40:60] = 1
    labels[70:120, :] = labels[:30, :] = 2
    made = PartScene.of(np.repeat(labels[None] * 60, 3, 0), labels, [1, 2], 0.5)
    chips = PartChips([PartSource([made], 1.0, {1: 1.0})], 20, 64, 3, 3, Augmentation.none())
    for i in range(20):
        pixels, parts = chips[i]
        assert pixels[0][ndimage.binary_erosion(parts[0].numpy(), iterations=2)].max() < 0.25


def test_beyond_the_scene_nothing_is_measured_and_no_part_lies() -> None:
    made, _ = parts_scene()
    pixels, numbers = made.read(Window(-10, 190, 40, 40), 1.0)
    assert np.isnan(pixels[:, :10]).all()
    assert np.isnan(pixels[:, :, 10:]).all()
    assert not np.isnan(pixels[:, 10:, :10]).any()
    assert not numbers[:10].any()


def test_first_clicks_and_boxes_lie_on_the_part() -> None:
    part = np.zeros((64, 64), bool)
    part[10:21, 30:51] = True
    assert first_point(part, None) == (31.0, pytest.approx(71.0, abs=10))  # two pixels of a chip in one of the mask
    assert box_of(part, None) == (20.0, 60.0, 42.0, 102.0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        row, col = first_point(part, rng)
        assert part[int(row / 2), int(col / 2)]
        top, left, bottom, right = box_of(part, rng)
        assert 0 <= top < bottom <= 128
        assert 0 <= left < right <= 128


def test_corrections_lie_in_the_worst_mistake() -> None:
    part, found = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    part[5:25, 5:25] = found[5:25, 5:11] = True
    found[40:48, 40:48] = True
    (row, col), label = worst_mistake(part, found)
    assert label == POSITIVE
    assert abs(col - 17) <= 1
    assert 11 <= row <= 18
    found[30:63, 30:63] = True
    assert worst_mistake(part, found)[1] == NEGATIVE
    rng = np.random.default_rng(0)
    for _ in range(20):
        row, col, label = correction(part, found, rng)
        assert found[int(row / 2), int(col / 2)]
        assert not part[int(row / 2), int(col / 2)]
    assert worst_mistake(part, part)[1] == POSITIVE


def test_each_round_adds_a_click_and_hands_the_trusted_mask_on() -> None:
    parts = torch.zeros(2, 32, 32, dtype=torch.bool)
    parts[:, 4:20, 6:18] = True
    first = first_prompts(parts, ["point", "box"], None)
    assert first.labels.tolist() == [[1], [-1]]
    assert first.boxes[0].isnan().all()
    assert first.boxes[1].tolist() == [8, 12, 40, 36]
    masks = Masks(torch.randn(2, 3, 32, 32), torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1]]))
    second = corrected(first, masks, parts, None)
    assert second.points.shape == (2, 2, 2)
    assert torch.equal(second.earlier[0, 0], masks.logits[0, 1])
    assert torch.equal(second.earlier[1, 0], masks.logits[1, 0])


def test_the_best_candidate_is_what_is_learned_and_perfect_ones_cost_nothing() -> None:
    truth = torch.zeros(1, 1, 32, 32)
    truth[..., 8:20, 8:20] = 1
    right = (2 * truth - 1) * 30
    logits = torch.cat([right, right, right], 1)
    assert candidates_loss(Masks(logits, torch.ones(1, 3)), truth) < 1e-3
    one = torch.cat([right, -right, -right], 1).requires_grad_()
    candidates_loss(Masks(one, torch.tensor([[1.0, 0.0, 0.0]])), truth).backward()
    assert one.grad[0, 0].abs().max() < 1e-6
    assert one.grad[0, 1].abs().max() > 1e-4
    assert iou(logits > 0, truth > 0.5).tolist() == [[1, 1, 1]]


def test_small_parts_stay_when_halved() -> None:
    parts = torch.zeros(2, 8, 8, dtype=torch.bool)
    parts[0, 3, 3] = True
    parts[1, 2:6, 2:6] = True
    assert halved(parts).sum((1, 2)).tolist() == [1, 4]


def test_some_steps_fit_a_part() -> None:
    torch.manual_seed(0)
    network = tiny_promptable().network
    chips = torch.full((1, 3, 64, 64), -1.0)
    chips[..., 10:40, 10:40] = 1
    parts = torch.zeros(2, 32, 32, dtype=torch.bool)
    parts[:, 5:20, 5:20] = True
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(network, chips, parts, rng)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_a_network_that_knows_the_answers_is_judged_to_know_them(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif")
    labels = np.zeros((150, 170), np.uint8)
    labels[8:16, 4:24] = labels[128:140, 40:52] = 2
    labels[40:52, 20:128] = labels[40:112, 120:128] = 1
    found = judge(SameColor(), [Scene(path, labels)], {"red": (1,), "blue": (2,)}, count=5, least_px=10)
    assert [one.kind for one in found] == ["red", "blue", "blue"]
    assert means(found[1:]) == dict.fromkeys(WAYS, 1.0)
    click, box, clicks = found[0].iou
    assert (click, clicks) == (pytest.approx(1, abs=0.02),) * 2
    assert box < 0.01  # its middle is ground
    none = judge(SameColor(tolerance=-1), [Scene(path, labels)], {"blue": (2,)}, count=1, least_px=10)
    assert means(none) == dict.fromkeys(WAYS, 0.0)


def test_overlap_is_that_of_whole_scenes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        row, col, other_row, other_col = rng.integers(0, 12, 4)
        one = Mask(Window(int(row), int(col), 9, 7), rng.random((9, 7)) < 0.5)
        other = Mask(Window(int(other_row), int(other_col), 8, 8), rng.random((8, 8)) < 0.5)
        whole = np.zeros((2, 30, 30), bool)
        whole[0][one.window.slices], whole[1][other.window.slices] = one.pixels, other.pixels
        assert overlap(one, other) == pytest.approx(whole.all(0).sum() / whole.any(0).sum())


def test_the_card_is_one() -> None:
    made = card(100, 16, "landcover-rgb", "1")
    assert made.takes_prompts
    assert made.chip_px % made.output_stride == 0
