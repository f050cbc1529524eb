from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models import Preprocessing, preset
from vitc.training import load_dataset
from vitc.training.parts import Parts, hold_out, load_parts

SMALL = Preprocessing(resize=20, crop=16)
DIGITS = preset("micro").preprocessing


def counts(parts: Parts) -> list[list[int]]:
    every = (parts.train, parts.validation, parts.test)
    return [torch.bincount(part.targets, minlength=len(part.labels)).tolist() for part in every]


def assert_disjoint(parts: Parts) -> None:
    names = parts.train.names + parts.validation.names + parts.test.names
    assert len(set(names)) == len(names)


def test_a_tenth_of_every_class_of_the_training_digits_is_held_out() -> None:
    parts = load_parts("digits", DIGITS)
    assert_disjoint(parts)
    given = load_dataset("digits", DIGITS, "train")
    assert set(parts.train.names) | set(parts.validation.names) == set(given.names)
    assert parts.test.names == load_dataset("digits", DIGITS, "test").names
    of_class = torch.bincount(given.targets).tolist()
    assert counts(parts)[1] == [round(count / 10) for count in of_class]
    assert load_parts("digits", DIGITS).validation.names == parts.validation.names


def test_held_out_images_are_spread_over_a_class_and_keep_their_class_and_pixels() -> None:
    given = load_dataset("digits", DIGITS, "train")
    _, validation = hold_out(given)
    places = [given.names.index(name) for name in validation.names]
    assert places == sorted(places)
    assert min(places) < 144
    assert max(places) > 1437 - 144
    assert validation.targets.tolist() == given.targets[places].tolist()
    assert torch.equal(validation[5][0], given[places[5]][0])


def test_at_least_one_image_of_a_class_of_two_is_held_out_and_none_of_a_class_of_one(
    class_folders: Path,
) -> None:
    assert counts(load_parts(str(class_folders), SMALL)) == [[7, 3, 5], [1, 1, 1], [2, 1, 1]]
    data = load_dataset(str(class_folders), SMALL)
    few = data.subset([0, 10, 11, *range(15, 22)])
    stays, held = hold_out(few)
    assert torch.bincount(stays.targets).tolist() == [1, 1, 6]
    assert held.targets.tolist() == [1, 2]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_one_given_part_is_for_testing_and_validation_is_taken_from_training(
    presplit_folders: Path, held_out: str
) -> None:
    (presplit_folders / "val").rename(presplit_folders / held_out)
    parts = load_parts(str(presplit_folders), SMALL)
    assert_disjoint(parts)
    assert counts(parts) == [[5, 3], [1, 1], [5, 3]]
    assert all("/train/" in name for name in parts.train.names + parts.validation.names)
    assert all(f"/{held_out}/" in name for name in parts.test.names)


def test_three_given_parts_are_respected(three_parts: Path) -> None:
    parts = load_parts(str(three_parts), SMALL)
    assert counts(parts) == [[6, 5], [3, 2], [4, 3]]
    for part, data in (("train", parts.train), ("val", parts.validation), ("test", parts.test)):
        assert all(f"/{part}/" in name for name in data.names)


def test_validation_folders_are_mapped_to_the_training_classes(three_parts: Path) -> None:
    shutil.rmtree(three_parts / "val" / "dark")
    assert counts(load_parts(str(three_parts), SMALL))[1] == [0, 2]
    (three_parts / "val" / "light").rename(three_parts / "val" / "new")
    with pytest.raises(VitcError, match="new"):
        load_parts(str(three_parts), SMALL)


def test_validation_images_without_classes_are_refused(three_parts: Path) -> None:
    shutil.rmtree(three_parts / "val")
    (three_parts / "val").mkdir()
    Image.new("RGB", (20, 20)).save(three_parts / "val" / "0.png")
    with pytest.raises(VitcError, match="no class folders"):
        load_parts(str(three_parts), SMALL)


def test_one_training_image_a_class_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in "01":
            Image.new("RGB", (20, 20)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(VitcError, match="one training image a class"):
        load_parts(str(tmp_path), SMALL)
