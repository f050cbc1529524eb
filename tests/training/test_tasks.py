"""Detection and segmentation: scenes, targets, annotations, and a run from training to a check."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models.checkpoint import load
from vitc.models.preprocessing import SMALL_PICTURES
from vitc.runtime.detection import DecodeOptions, decode
from vitc.training.epoch_order import Share
from vitc.training.tasks.augmentation import Batch, cropped, mirrored
from vitc.training.tasks.coco import CocoExamples, read_annotations
from vitc.training.tasks.data import load_task_parts
from vitc.training.tasks.examples import Example
from vitc.training.tasks.losses import detection_loss
from vitc.training.tasks.mask_folders import MaskExamples, find_masks, read_labels
from vitc.training.tasks.measures import Confusion, precision
from vitc.training.tasks.options import TaskOptions
from vitc.training.tasks.scenes import MARKED, PLAIN, scene
from vitc.training.tasks.targets import RADIUS, assigned, ranges
from vitc.training.tasks.train import train_task

SIZE = (48, 32)


# --- scenes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [PLAIN, MARKED])
def test_a_scene_follows_from_its_number_and_boxes_are_tight_around_the_mask(variant: str) -> None:
    seen = 0
    for index in range(12):
        one, other = (scene(variant, "val", (64, 64), index) for _ in range(2))
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.boxes, other.boxes)
        for box, digit in zip(one.boxes.astype(int), one.classes, strict=True):
            x0, y0, x1, y1 = box
            inside = one.mask[y0:y1, x0:x1] == digit + 1
            assert inside.any(axis=1).all() or inside.any(axis=1)[[0, -1]].all()
            assert inside.any(axis=0)[[0, -1]].all()
            seen += 1
        assert set(np.unique(one.mask)) <= {0, *(one.classes + 1)}
    assert seen > 10
    assert not np.array_equal(
        scene(variant, "val", (64, 64), 0).pixels, scene(variant, "val", (64, 64), 1).pixels
    )


def test_digits_of_a_marked_scene_count_where_their_colour_stands_in_a_far_corner() -> None:
    side, last = 8, 56
    corners = [(row, column) for row in (0, last) for column in (0, last)]
    away, others = [], 0
    for index in range(40):
        made = scene(MARKED, "test", (64, 64), index)
        pixels = made.pixels.astype(int)
        marks = {}
        for row, column in corners:
            square = pixels[row : row + side, column : column + side]
            if np.ptp(square, axis=(0, 1)).max() == 0:
                marks[tuple(square[0, 0])] = (row + side / 2, column + side / 2)
                pixels[row : row + side, column : column + side] = 0
        assert marks
        for x0, y0, x1, y1 in made.boxes.astype(int):
            inside = pixels[y0:y1, x0:x1]
            colours = [mark for mark in marks if (np.abs(inside - mark).max(axis=2) < 9).any()]
            assert len(colours) == 1
            middle = np.array([y0 + y1, x0 + x1]) / 2
            away.append(np.abs(middle - marks[colours[0]]).max())
            inside[:] = 0
        for mark in marks:
            assert not (np.abs(pixels - mark).max(axis=2) < 9).any()
        others += bool((pixels.max(axis=2) > 180).any())
    assert others > 30  # in most scenes there are digits that do not count
    assert np.quantile(away, 0.1) > 28
    assert len(away) > 40


# --- targets --------------------------------------------------------------------------------------


def plain_targets(
    boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], strides: tuple[int, ...]
) -> list[tuple[int, tuple[float, ...], float]]:
    """FCOS by loops, one place after the other."""
    found = []
    for stride, (low, high) in zip(strides, ranges(strides), strict=True):
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                best, told = math.inf, (-1, (0.0,) * 4, 0.0)
                for box, own in zip(boxes, classes, strict=True):
                    if own < 0:
                        continue
                    x0, y0, x1, y1 = box
                    sides = x - x0, y - y0, x1 - x, y1 - y
                    near = (
                        abs(x - (x0 + x1) / 2) < RADIUS * stride
                        and abs(y - (y0 + y1) / 2) < RADIUS * stride
                    )
                    area = (x1 - x0) * (y1 - y0)
                    if min(sides) > 0 and near and low < max(sides) <= high and area < best:
                        across, down = (min(sides[i::2]) / max(sides[i::2]) for i in (0, 1))
                        best, told = area, (int(own), sides, math.sqrt(across * down))
                found.append(told)
    return found


@pytest.mark.parametrize("strides", [(8,), (4, 8, 16)])
def test_places_learn_the_boxes_that_a_plain_reference_gives_them(strides: tuple[int, ...]) -> None:
    random = np.random.default_rng(3)
    corners = random.uniform(0, 24, (5, 7, 2))
    boxes = np.concatenate([corners, corners + random.uniform(3, 24, (5, 7, 2))], -1)
    boxes[..., 2] = boxes[..., 2].clip(max=SIZE[1])
    classes = random.integers(-1, 4, (5, 7))
    boxes[0, 1] = boxes[0, 0]  # two of equal area
    classes[1] = -1  # a picture without boxes
    own = assigned(torch.tensor(boxes).float(), torch.tensor(classes), SIZE, strides)
    for image in range(5):
        wanted = plain_targets(boxes[image].astype(np.float32), classes[image], SIZE, strides)
        assert own.classes[image].tolist() == [each[0] for each in wanted]
        for place, (of, sides, middle) in enumerate(wanted):
            if of >= 0:
                assert own.distances[image, place].tolist() == pytest.approx(sides, abs=1e-4)
                assert float(own.centreness[image, place]) == pytest.approx(middle, abs=1e-5)
    assert (own.classes >= 0).sum() > 10


def test_pictures_without_any_box_have_no_targets() -> None:
    none = assigned(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), SIZE, (8,))
    assert (none.classes == -1).all()
    assert none.distances.shape == (2, 24, 4)


# --- decoding -------------------------------------------------------------------------------------


def maps_of(random: np.random.Generator, strides: tuple[int, ...], classes: int) -> dict[str, Any]:
    maps = {}
    for stride in strides:
        shape = SIZE[0] // stride, SIZE[1] // stride
        maps[f"classes_{stride}"] = random.random((*shape, classes), dtype=np.float32).round(2)
        maps[f"boxes_{stride}"] = random.uniform(0, 20, (*shape, 4)).astype(np.float32)
        maps[f"centreness_{stride}"] = random.random((*shape, 1), dtype=np.float32).round(1)
    return maps


def plain_boxes(
    maps: dict[str, Any], strides: tuple[int, ...], options: DecodeOptions
) -> list[tuple[Any, ...]]:
    """Decoding and suppression by loops over candidates, in fp32."""
    one = np.float32
    candidates = []
    for stride in strides:
        rows, columns, classes = maps[f"classes_{stride}"].shape
        for row in range(rows):
            for column in range(columns):
                left, top, right, bottom = maps[f"boxes_{stride}"][row, column]
                x, y = one((column + 0.5) * stride), one((row + 0.5) * stride)
                box = (
                    max(x - left, one(0)),
                    max(y - top, one(0)),
                    min(x + right, one(SIZE[1])),
                    min(y + bottom, one(SIZE[0])),
                )
                middle = maps[f"centreness_{stride}"][row, column, 0]
                for k in range(classes):
                    score = maps[f"classes_{stride}"][row, column, k] * middle
                    if score > one(options.score):
                        candidates.append((score, k, box))
    candidates.sort(key=lambda each: -each[0])
    kept: list[tuple[Any, ...]] = []
    for score, k, box in candidates[: options.candidates]:
        clear = True
        for _, other, theirs in kept:
            wide = max(min(box[2], theirs[2]) - max(box[0], theirs[0]), one(0))
            high = max(min(box[3], theirs[3]) - max(box[1], theirs[1]), one(0))
            own, of = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, theirs))
            common = wide * high
            if other == k and common > one(options.overlap) * ((own + of) - common):
                clear = False
        if clear:
            kept.append((score, k, box))
    return kept[: options.most]


@pytest.mark.parametrize("strides", [(8,), (4, 8)])
def test_decoding_equals_loops_over_candidates_where_scores_are_equal_too(
    strides: tuple[int, ...],
) -> None:
    random = np.random.default_rng(5)
    options = DecodeOptions(score=0.3, overlap=0.4, candidates=150, most=40)
    for _ in range(4):
        maps = maps_of(random, strides, 3)
        found = decode(maps, strides, SIZE, options)
        wanted = plain_boxes(maps, strides, options)
        assert found.scores.tolist() == [float(each[0]) for each in wanted]
        assert found.classes.tolist() == [each[1] for each in wanted]
        assert found.boxes.tolist() == [[float(side) for side in each[2]] for each in wanted]
        assert len(found) > 10


# --- augmentation and measures --------------------------------------------------------------------


def pictured() -> Batch:
    """Pictures whose boxes are the white rectangles in them, and masks likewise."""
    random = np.random.default_rng(1)
    images, masks = torch.zeros(6, 3, *SIZE), torch.zeros(6, *SIZE, dtype=torch.int64)
    boxes = torch.zeros(6, 1, 4)
    for index in range(6):
        x, y = (int(v) for v in random.integers(4, 12, 2))
        images[index, :, y : y + 16, x : x + 12] = 1
        masks[index, y : y + 16, x : x + 12] = 1
        boxes[index, 0] = torch.tensor([x, y, x + 12, y + 16])
    return Batch(images, boxes, torch.zeros(6, 1, dtype=torch.int64), masks)


@pytest.mark.parametrize("change", [mirrored, cropped])
def test_boxes_and_masks_go_with_their_pictures(change: Any) -> None:
    before = pictured()
    after = change(before, torch.Generator().manual_seed(0), Share.whole(6))
    assert not torch.equal(after.boxes, before.boxes)
    for image, box, of, mask in zip(
        after.images, after.boxes[:, 0], after.classes[:, 0], after.masks, strict=True
    ):
        white = image[0] > 0.5
        assert (white == (mask == 1)).float().mean() > 0.98
        if of < 0:
            continue
        rows, columns = (white.any(dim=axis).nonzero() for axis in (1, 0))
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == pytest.approx([float(side) for side in tight], abs=1.1)


def test_mean_average_precision_is_one_of_the_truth_and_less_with_a_box_beside() -> None:
    boxes = np.array([[2, 3, 20, 21], [5, 6, 14, 30]], np.float64)
    truth = Example(np.zeros((48, 32, 3), np.uint8), boxes, np.array([0, 2]), np.zeros(2, bool))
    maps = {
        "boxes": boxes.astype(np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "classes": np.array([0, 2], np.int32),
    }
    from vitc.runtime.detection import Detections

    assert precision([Detections(**maps)], [truth], 3).map == pytest.approx(1)
    maps["classes"] = np.array([0, 1], np.int32)
    assert precision([Detections(**maps)], [truth], 3).map == pytest.approx(0.5)


def test_mean_intersection_over_union_leaves_void_and_absent_classes_out() -> None:
    counts = Confusion(4)
    counts.add(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, -1, -1]))
    assert counts.mean == pytest.approx((1 / 2 + 1 / 2) / 2)


# --- losses ---------------------------------------------------------------------------------------


def plain_loss(maps: dict[str, np.ndarray], boxes: np.ndarray, classes: np.ndarray) -> float:
    """The losses of one image of 16 x 16 pixels by loops, from the formulas of the papers."""
    sure = {name: 1 / (1 + np.exp(-values)) for name, values in maps.items()}
    told = plain_targets(boxes, classes, (16, 16), (8,))
    count = sum(own >= 0 for own, _, _ in told)
    focal = among = middle = overlap = weights = 0.0
    for place, (own, (left, top, right, bottom), centreness) in enumerate(told):
        at = divmod(place, 2)
        for label, p in enumerate(sure["classes_8"][at]):
            true = label == own
            focal -= (0.25 * (1 - p) ** 2 * np.log(p)) if true else 0.75 * p**2 * np.log(1 - p)
        if own < 0:
            continue
        logits = maps["classes_8"][at]
        among += np.log(np.exp(logits).sum()) - logits[own]
        p = sure["centreness_8"][at][0]
        middle -= centreness * np.log(p) + (1 - centreness) * np.log(1 - p)
        x0, y0, x1, y1 = np.exp(maps["boxes_8"][at]) * 16 * (-1, -1, 1, 1)
        common = (min(x1, right) - max(x0, -left)) * (min(y1, bottom) - max(y0, -top))
        hull = (max(x1, right) - min(x0, -left)) * (max(y1, bottom) - min(y0, -top))
        union = (x1 - x0) * (y1 - y0) + (left + right) * (top + bottom) - common
        overlap += (1 - (common / union - (hull - union) / hull)) * centreness
        weights += centreness
    return float((4 * focal + among + middle) / count + overlap / weights)


def test_the_loss_of_a_detector_is_that_of_plain_loops() -> None:
    random = np.random.default_rng(3)
    maps = {
        f"{branch}_8": random.normal(size=(2, 2, channels))
        for branch, channels in (("classes", 3), ("boxes", 4), ("centreness", 1))
    }
    boxes, classes = np.array([[1.0, 2, 11, 13], [7, 6, 16, 15]]), np.array([2, 0])
    given = torch.tensor(boxes)[None].float(), torch.tensor(classes)[None]
    found = detection_loss(
        {name: torch.tensor(values)[None].float() for name, values in maps.items()},
        assigned(*given, (16, 16), (8,)),
        (8,),
    )
    assert float(found.total) == pytest.approx(plain_loss(maps, boxes, classes), rel=1e-5)


# --- annotations ----------------------------------------------------------------------------------


def coco(folder: Path, **changes: Any) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), (10, 20, 30)).save(folder / "images" / name)
    told: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 8, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 5, 10, 12]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
    }
    told["annotations"][0] |= changes.pop("annotation", {})
    told["images"][1] |= changes.pop("image", {})
    file = folder / "instances_train.json"
    file.write_text(json.dumps(told | changes))
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotation": {"bbox": [35, 5, 10, 12]}}, ("annotation 1", "outside a.png")),
        ({"annotation": {"bbox": [4, 5, -3, 12]}}, ("annotation 1", "-3 x 12")),
        ({"annotation": {"bbox": [4, 5, 3]}}, ("annotation 1", "four numbers")),
        ({"annotation": {"bbox": [4, 5, float("nan"), 3]}}, ("annotation 1", "four numbers")),
        ({"annotation": {"bbox": [4, 5, 10**400, 3]}}, ("annotation 1", "four numbers")),
        ({"annotation": {"iscrowd": "0"}}, ("annotation 1", "iscrowd '0'")),
        ({"annotation": {"iscrowd": None}}, ("annotation 1", "iscrowd None")),
        ({"annotation": {"category_id": 4}}, ("annotation 1", "class 4")),
        ({"annotation": {"image_id": 70}}, ("annotation 1", "image 70")),
        ({"annotation": {"id": 2}}, ("annotation 2", "used twice")),
        ({"image": {"file_name": "c.png"}}, ("image 8", "c.png")),
        ({"image": {"file_name": "../images/a.png"}}, ("image 8", "no such picture")),
        ({"image": {"file_name": "c" * 5000 + ".png"}}, ("image 8", "cc...")),
        ({"image": {"file_name": "c\n.png"}}, ("image 8", r"'c\n.png'")),
        ({"image": {"file_name": "c\ud800.png"}}, ("image 8", r"'c\ud800.png'")),
        ({"image": {"file_name": "a.png"}}, ("image 8 is a.png", "image 7")),
        ({"image": {"id": 7}}, ("two entries of images", "7")),
        ({"image": {"width": 0}}, ("image 8", "width 0")),
        ({"categories": []}, ("no classes",)),
        ({"images": None}, ("no COCO JSON",)),
    ],
)
def test_annotations_that_do_not_hold_together_are_one_sentence_with_file_and_id(
    tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    file = coco(tmp_path, **changes)
    with pytest.raises(VitcError) as raised:
        read_annotations(file, "train")
    assert str(file) in raised.value.message
    assert all(word in raised.value.message for word in words)


def test_annotations_that_are_no_json_are_named(tmp_path: Path) -> None:
    file = coco(tmp_path)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(VitcError, match="no JSON"):
        read_annotations(file, "train")


def test_boxes_without_area_are_counted_and_crowds_are_not_learnt(tmp_path: Path) -> None:
    read = read_annotations(coco(tmp_path, annotation={"bbox": [4, 5, 0, 12]}), "train")
    assert read.left == {"boxes without area": 1}
    examples = CocoExamples(read, SMALL_PICTURES)
    assert examples.example(0).crowd.tolist() == [True]
    assert examples.__getitems__([0, 1])[2].tolist() == [[], []]


def test_a_part_without_boxes_is_refused(tmp_path: Path) -> None:
    crowd = {"annotation": {"bbox": [4, 5, 0, 12]}}
    for part, changes in (("test", {}), ("train", crowd)):
        coco(tmp_path, **changes).rename(tmp_path / f"instances_{part}.json")
    with pytest.raises(VitcError, match=r"instances_train\.json has no boxes with an area"):
        load_task_parts("detection", str(tmp_path), SMALL_PICTURES)


def test_boxes_are_those_of_the_input_where_the_picture_is_resized_and_cropped(
    tmp_path: Path,
) -> None:
    examples = CocoExamples(read_annotations(coco(tmp_path), "train"), SMALL_PICTURES)
    # 40 x 30 becomes 42 x 32, whose middle is taken: 5 to the right of the corner.
    wanted = [4 * 42 / 40 - 5, 5 * 32 / 30, 14 * 42 / 40 - 5, 17 * 32 / 30]
    wanted[0] = max(wanted[0], 0)
    assert examples.example(0).boxes[0].tolist() == pytest.approx(wanted)


def test_a_picture_of_another_size_than_stated_is_named(tmp_path: Path) -> None:
    read = read_annotations(coco(tmp_path, image={"width": 41}), "train")
    with pytest.raises(VitcError, match=r"image 8 is stated to be 41 x 30, .*b\.png is 40 x 30"):
        CocoExamples(read, SMALL_PICTURES).example(1)


def masks(folder: Path, mask: Image.Image | None = None, name: str = "b") -> Path:
    for part in ("train", "trainannot"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for own in ("a", "b"):
        Image.new("RGB", (40, 30)).save(folder / "train" / f"{own}.jpg")
        values = np.arange(1200).reshape(30, 40) % 3
        Image.fromarray(values.astype(np.uint8)).save(folder / "trainannot" / f"{own}.png")
    if mask is not None:
        mask.save(folder / "trainannot" / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"sky\nroad\nroad\n", "3 classes, 2 different"),
        (b"sky\n", "1 classes"),
        (b"sk\xff\nroad\n", "cannot be read"),
        (None, "it is no file"),
    ],
)
def test_names_of_classes_that_are_none_are_refused(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "classes.txt"
    _ = file.mkdir() if content is None else file.write_bytes(content)
    found = find_masks(masks(tmp_path), "train")
    assert found is not None
    with pytest.raises(VitcError, match=r"classes\.txt") as raised:
        read_labels(tmp_path, found, 255)
    assert words in raised.value.message


def test_names_of_classes_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("sky\r\nroad\r\n".encode("utf-8-sig"))
    found = find_masks(masks(tmp_path), "train")
    assert found is not None
    assert read_labels(tmp_path, found, 255) == ("sky", "road")


def test_a_mask_that_is_a_link_to_itself_is_a_missing_one(tmp_path: Path) -> None:
    (masks(tmp_path) / "trainannot" / "b.png").unlink()
    (tmp_path / "trainannot" / "b.png").symlink_to("b.png")
    with pytest.raises(VitcError, match=r"b\.jpg has no mask"):
        find_masks(tmp_path, "train")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Image.new("L", (30, 40)), "is 30 x 40, its picture"),
        (Image.new("RGB", (40, 30)), "mode RGB"),
        (Image.new("L", (40, 30), 9), "value 9"),
    ],
)
def test_masks_that_do_not_fit_their_pictures_are_named(
    tmp_path: Path, mask: Image.Image, words: str
) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    found = find_masks(masks(tmp_path, mask), "train")
    assert found is not None
    labels = read_labels(tmp_path, found, 255)
    with pytest.raises(VitcError) as raised:
        MaskExamples(found, labels, SMALL_PICTURES).example(1)
    assert words in raised.value.message
    assert "b.png" in raised.value.message


def test_a_picture_without_a_mask_is_named_and_a_mask_without_a_picture_counted(
    tmp_path: Path,
) -> None:
    found = find_masks(masks(tmp_path, Image.new("L", (40, 30)), "c"), "train")
    assert found is not None
    assert found.left == {"masks without a picture": 1}
    (tmp_path / "trainannot" / "a.png").unlink()
    with pytest.raises(VitcError, match=r"a\.jpg has no mask"):
        find_masks(tmp_path, "train")


def test_void_pixels_are_no_class_and_classes_are_those_of_the_masks(tmp_path: Path) -> None:
    found = find_masks(masks(tmp_path), "train")
    assert found is not None
    assert read_labels(tmp_path, found, 2) == ("0", "1")
    mask = MaskExamples(found, ("0", "1"), SMALL_PICTURES, void=2).example(0).mask
    assert mask is not None
    assert set(np.unique(mask)) == {-1, 0, 1}
    assert mask.shape == (32, 32)


def test_data_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    for task, words in (("detection", "no annotations"), ("segmentation", "no pictures")):
        with pytest.raises(VitcError, match=words):
            load_task_parts(task, str(tmp_path), SMALL_PICTURES)


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitc.training.tasks.data._TRAINED", 8)
    monkeypatch.setattr("vitc.training.tasks.data._VALIDATED", 3)
    monkeypatch.setattr("vitc.training.tasks.data._HELD", 3)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_run_leaves_its_files_and_resumed_equals_one_that_was_not_interrupted(
    tmp_path: Path, task: str
) -> None:
    plain = {"task": task, "preset": "micro", "depth": 1, "image_size": 32, "batch_size": 4}

    def run(name: str, progress: Any = None, **more: Any) -> Any:
        out = tmp_path / f"{name}.safetensors"
        return train_task(TaskOptions(out=out, epochs=2, **plain, **more), progress)

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    whole = run("whole")
    assert all(file.is_file() for file in whole.files)
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop)
    resumed = run("parts", resume=True)
    assert [report.loss for report in resumed.history] == [r.loss for r in whole.history]
    own, other = load(whole.checkpoint), load(resumed.checkpoint)
    assert own.config.arch == task
    assert own.history["test"] == whole.test == resumed.test
    assert all(torch.equal(v, other.state_dict()[name]) for name, v in own.state_dict().items())
