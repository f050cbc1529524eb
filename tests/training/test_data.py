from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models import Preprocessing, preset
from vitc.models.picture_files import counted
from vitc.training import load_dataset
from vitc.training.data import batches, loader

SMALL = Preprocessing(resize=20, crop=16)
DIGITS = preset("micro").preprocessing


def test_digits_are_split_in_a_fixed_stratified_way() -> None:
    train, test = (load_dataset("digits", DIGITS, split) for split in ("train", "test"))
    everything = load_dataset("digits", DIGITS)
    assert (len(train), len(test), len(everything)) == (1437, 360, 1797)
    assert set(train.names).isdisjoint(test.names)
    assert set(train.names) | set(test.names) == set(everything.names)
    assert test.labels == tuple("0123456789")
    shares = torch.bincount(test.targets) / torch.bincount(everything.targets)
    assert (shares - 0.2).abs().max() < 0.01
    assert load_dataset("digits", DIGITS, "test").names == test.names


def test_digits_come_as_normalised_batches_in_order() -> None:
    data = load_dataset("digits", DIGITS, "test", limit=50)
    batches = list(data.images)
    assert [tuple(b.shape) for b in batches] == [(32, 3, 32, 32), (18, 3, 32, 32)]
    images = torch.cat(batches)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.std() > 0.3
    assert torch.equal(images[33], data[33][0])
    assert torch.equal(images, torch.cat(list(data.images)))


def test_limit_is_spread_over_all_classes() -> None:
    data = load_dataset("digits", DIGITS, limit=60)
    assert len(data) == 60
    assert torch.bincount(data.targets, minlength=10).min() >= 1


def test_folder_classes_are_the_sorted_folder_names(class_folders: Path) -> None:
    data = load_dataset(str(class_folders), SMALL)
    assert data.labels == ("dark", "grey", "light")
    assert torch.bincount(data.targets).tolist() == [10, 5, 7]
    means = torch.stack([torch.cat(list(data.images))[data.targets == c].mean() for c in range(3)])
    assert means[0] < means[1] < means[2]


def test_folder_split_keeps_a_fifth_of_every_class_and_never_changes(class_folders: Path) -> None:
    train, test = (load_dataset(str(class_folders), SMALL, split) for split in ("train", "test"))
    assert torch.bincount(test.targets).tolist() == [2, 1, 1]
    assert torch.bincount(train.targets).tolist() == [8, 4, 6]
    assert set(train.names).isdisjoint(test.names)
    assert load_dataset(str(class_folders), SMALL, "test").names == test.names


def test_given_split_is_respected(presplit_folders: Path) -> None:
    train, test = (load_dataset(str(presplit_folders), SMALL, s) for s in ("train", "test"))
    assert torch.bincount(train.targets).tolist() == [6, 4]
    assert torch.bincount(test.targets).tolist() == [5, 3]
    assert all("/val/" in name for name in test.names)
    assert len(load_dataset(str(presplit_folders), SMALL)) == 18


def test_of_three_given_parts_the_test_images_are_those_of_test(three_parts: Path) -> None:
    parts = [load_dataset(str(three_parts), SMALL, s) for s in ("train", "test", "all")]
    assert [len(part) for part in parts] == [11, 7, 18]
    assert all("/test/" in name for name in parts[1].names)


def test_subset_is_the_images_asked_for_in_that_order(class_folders: Path) -> None:
    data = load_dataset(str(class_folders), SMALL)
    some = data.subset([12, 3, 20])
    assert some.names == (data.names[12], data.names[3], data.names[20])
    assert some.targets.tolist() == [1, 0, 2]
    assert (some.labels, some.preprocessing) == (data.labels, data.preprocessing)
    assert torch.equal(some[2][0], data[20][0])
    assert len(data.subset([])) == 0


def test_folders_are_mapped_to_the_labels_of_a_network(class_folders: Path) -> None:
    labels = ("light", "unseen", "dark", "grey")
    data = load_dataset(str(class_folders), SMALL, labels=labels)
    assert data.labels == labels
    assert torch.bincount(data.targets, minlength=4).tolist() == [7, 0, 10, 5]
    with pytest.raises(VitcError, match="grey, light"):
        load_dataset(str(class_folders), SMALL, labels=("dark", "other"))


def test_images_without_classes_can_be_looked_at_but_not_split(class_folders: Path) -> None:
    data = load_dataset(str(class_folders / "grey"), SMALL)
    assert data.labels == ()
    assert data.targets.tolist() == [-1] * 5
    with pytest.raises(VitcError, match="no classes"):
        load_dataset(str(class_folders / "grey"), SMALL, "test")


def test_unreadable_image_is_named(class_folders: Path) -> None:
    (class_folders / "grey" / "99.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    data = load_dataset(str(class_folders), SMALL)
    with pytest.raises(VitcError, match=r"grey/99\.png"):
        list(data.images)


def test_truncated_image_is_named(class_folders: Path) -> None:
    path = class_folders / "grey" / "00.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VitcError, match=r"grey/00\.png"):
        list(load_dataset(str(class_folders), SMALL).images)


def test_kept_pixels_are_those_of_the_files(class_folders: Path) -> None:
    data = load_dataset(str(class_folders), SMALL)
    first = torch.cat(list(data.images))
    with Image.open(data.names[4]) as image:
        np.testing.assert_array_equal(first[4].numpy(), SMALL.apply(image))
    assert torch.equal(first, torch.cat(list(data.images)))


@pytest.mark.parametrize("what", ["missing", "empty", "one image"])
def test_unusable_folders_are_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    if what != "missing":
        (folder / "a").mkdir(parents=True)
    if what == "one image":
        Image.new("RGB", (20, 20)).save(folder / "a" / "0.png")
    with pytest.raises(VitcError):
        load_dataset(str(folder), SMALL, "train")


def test_test_classes_must_be_training_classes(presplit_folders: Path) -> None:
    (presplit_folders / "val" / "dark").rename(presplit_folders / "val" / "new")
    with pytest.raises(VitcError, match="new"):
        load_dataset(str(presplit_folders), SMALL, "test")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {".gif": "GIF", ".jfif": "JPEG", ".jpe": "JPEG", ".pgm": "PPM"}
    Image.new("L", (20, 20), 90).save(path, format=kinds.get(path.suffix.lower()))
    return path


def test_every_format_and_every_depth_of_folders_is_taken(tmp_path: Path) -> None:
    for name in ("0.gif", "1.JFIF", "2.jpe", "3.pgm", "sub/4.png", "sub/deeper/5.tiff", "6.WebP"):
        picture(tmp_path / "a" / name)
    picture(tmp_path / "b" / "0.png")
    data = load_dataset(str(tmp_path), SMALL)
    assert torch.bincount(data.targets).tolist() == [7, 1]
    assert torch.cat(list(data.images)).shape == (8, 3, 16, 16)
    assert data.left == {}


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda folder: (folder / "x.heic").write_bytes(b"x"), r"b \(1 \.heic\)"),
        (lambda folder: (folder / "x.png").symlink_to("/nowhere/x.png"), r"b \(1 broken links\)"),
        (lambda folder: (folder / "deeper").mkdir(), r"b \(empty\)"),
        (lambda folder: (folder / "none").write_bytes(b"x"), r"b \(1 files without a suffix\)"),
    ],
)
def test_a_class_that_would_vanish_is_an_error(tmp_path: Path, fill: Any, words: str) -> None:
    picture(tmp_path / "a" / "0.png")
    (tmp_path / "b").mkdir()
    fill(tmp_path / "b")
    with pytest.raises(VitcError, match=f"hold no picture that vitc reads: {words}") as caught:
        load_dataset(str(tmp_path), SMALL)
    assert ".gif" in caught.value.hint


def test_what_is_left_is_counted(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png", "spare/a/0.png"):
        picture(tmp_path / name)
    for name in ("train/a/x.heic", "train/a/y.HEIC", "test/b/notes.txt", "train/.hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "train" / "b" / "gone.png").symlink_to("nowhere.png")
    picture(tmp_path / "train" / "loose.png")
    data = load_dataset(str(tmp_path), SMALL, "train")
    assert data.left == {
        ".heic": 2,
        ".txt": 1,
        "broken links": 1,
        "pictures in no class folder": 1,
        "pictures in spare/": 1,
    }
    assert counted(data.left) == (
        "2 .heic, 1 .txt, 1 broken links, 1 pictures in no class folder, 1 pictures in spare/"
    )


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "0.png")
    picture(tmp_path / "data" / "b" / "0.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    data = load_dataset(str(tmp_path / "data"), SMALL)
    assert torch.bincount(data.targets).tolist() == [1, 1]


def test_class_names_that_read_alike_are_told_apart(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name in (composed, "b"):
        picture(tmp_path / "one" / name / "0.png")
    with pytest.raises(VitcError, match=r"in composed letters \(NFC\), the network has it in dec"):
        load_dataset(str(tmp_path / "one"), SMALL, labels=("b", decomposed))
    picture(tmp_path / "one" / decomposed / "0.png")
    with pytest.raises(VitcError, match=r"two class folders that read .*\(NFD\).*\(NFC\)"):
        load_dataset(str(tmp_path / "one"), SMALL)


def test_a_class_name_that_is_not_utf_8_is_an_error_and_a_file_name_is_not(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "0.png").rename(Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xe9.png")))
    picture(tmp_path / "b" / "0.png")
    assert torch.cat(list(load_dataset(str(tmp_path), SMALL).images)).shape[0] == 2
    (tmp_path / "b").rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")))
    with pytest.raises(VitcError, match=r"b'caf\\xe9' .* is not named in UTF-8"):
        load_dataset(str(tmp_path), SMALL)


def test_train_without_a_part_for_testing_is_named_and_a_class_of_that_name_is_not(
    tmp_path: Path,
) -> None:
    for name in ("train/a/0.png", "train/b/0.png", "valid/a/0.png"):
        picture(tmp_path / "split" / name)
    with pytest.raises(VitcError, match="neither test/ nor val/; it has valid/"):
        load_dataset(str(tmp_path / "split"), SMALL, "train")
    for name in ("train/0.png", "car/0.png"):
        picture(tmp_path / "vehicles" / name)
    assert load_dataset(str(tmp_path / "vehicles"), SMALL).labels == ("car", "train")


@pytest.mark.parametrize("ahead", [False, True])
def test_an_unreadable_image_reads_the_same_from_a_process_of_a_loader(
    class_folders: Path, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = class_folders / "grey" / "00.png"
    path.write_bytes(path.read_bytes()[:500])
    data = load_dataset(str(class_folders), SMALL)
    data.in_memory = not ahead
    monkeypatch.setattr("vitc.training.data._WORKERS", 1)
    reader = loader(data, batch_size=4)
    assert reader.num_workers == ahead
    with pytest.raises(VitcError, match=r"^The image .*grey/00\.png cannot be read") as caught:
        list(batches(reader))
    assert caught.value.hint == "Replace the file, or remove it."
    assert "\n" not in caught.value.message


class _Dies:
    in_memory = False

    def __len__(self) -> int:
        return 8

    def __getitems__(self, indices: Sequence[int]) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reading_process_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(VitcError, match="A process that reads images ended"):
        list(batches(loader(_Dies(), batch_size=4)))
