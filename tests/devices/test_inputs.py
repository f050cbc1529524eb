from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitc.devices.inputs import read_inputs, validated
from vitc.devices.prediction import Prediction, write_logits
from vitc.devices.source import Description
from vitc.errors import VitcError
from vitc.models import PRESETS, Preprocessing

CONFIG = PRESETS["micro"].config
SHOWN = PRESETS["micro"].preprocessing


def test_images_go_through_the_preprocessing_of_the_network(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (60, 40), (255, 0, 0)).save(path)

    read = read_inputs([path, path], CONFIG, SHOWN)

    assert read.names == (str(path), str(path))
    np.testing.assert_array_equal(read.part(0, 2)[:, 0], 1.0)
    np.testing.assert_array_equal(read.part(0, 2)[:, 1:], -1.0)


def test_an_array_is_taken_as_it_is(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))

    read = read_inputs([tmp_path / "x.npy"], CONFIG, SHOWN)

    np.testing.assert_array_equal(read.part(0, 2), array)
    assert read.part(0, 2).flags.c_contiguous
    assert read.names == ("x.npy[0]", "x.npy[1]")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x93NUMPY", "not a whole"),
        (b"", "not a whole"),
        (b"PK\x03\x04 no archive", "not a whole"),
        # Found by fuzzing: a dictionary without an end is an error of the tokenizer.
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'\n", "not a whole"),
    ],
)
def test_a_damaged_array_is_an_error(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)

    with pytest.raises(VitcError, match=words):
        read_inputs([tmp_path / "x.npy"], CONFIG, SHOWN)


def test_a_pickled_array_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(VitcError, match="not a whole"):
        read_inputs([tmp_path / "x.npy"], CONFIG, SHOWN)


def test_a_truncated_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])

    with pytest.raises(VitcError, match=r"x\.png cannot be read: image file is truncated"):
        list(read_inputs([path], CONFIG, SHOWN).batches(1))


def test_a_file_that_would_start_another_program_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (32, 32)).save(path, "eps")

    with pytest.raises(VitcError, match="is not an image"):
        list(read_inputs([path], CONFIG, SHOWN).batches(1))


def test_an_image_that_grows_beyond_memory_when_it_is_resized_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (1, 200_000)).save(path)

    with pytest.raises(VitcError, match="1 x 200000 would become"):
        list(read_inputs([path], CONFIG, SHOWN).batches(1))


def test_an_array_of_any_size_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 3, 32, 32)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + (12 << 30))  # takes no room
        file.seek(start + (9 << 30) + 4)
        file.write(np.float32(np.nan).tobytes())

    read = read_inputs([path], CONFIG, SHOWN)

    names, pixels = next(read.batches(50))
    assert (names[0], names[-1], pixels.shape) == ("x.npy[0]", "x.npy[49]", (50, 3, 32, 32))
    wrong = (9 << 30) // (3 * 32 * 32 * 4)
    with pytest.raises(VitcError, match=rf"nan at \[{wrong}, 0, 0, 1\]"):
        read.part(wrong - 3, wrong + 3)


def test_a_folder_is_every_picture_in_it_and_a_count_of_the_rest(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deeper/c.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (40, 40), 9).save(tmp_path / name, "gif" if name.endswith("f") else None)
    (tmp_path / "x.txt").write_text("")

    read = read_inputs([tmp_path, tmp_path / "b.png"], CONFIG, SHOWN)

    shown = [str(Path(name).relative_to(tmp_path)) for name in read.names]
    assert shown == ["a.JPG", "b.png", "deeper/c.gif", "b.png"]
    assert read.left == {".txt": 1}
    assert [len(names) for names, _ in read.batches(3)] == [3, 1]
    (tmp_path / "none").mkdir()
    with pytest.raises(VitcError, match="none holds no pictures"):
        read_inputs([tmp_path / "none"], CONFIG, SHOWN)


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")

    batches = read_inputs([tmp_path / "a.png", tmp_path / "b.png"], CONFIG, SHOWN).batches(1)

    assert next(batches)[1].shape == (1, 3, 32, 32)
    with pytest.raises(VitcError, match=r"b\.png is not an image"):
        next(batches)


def test_a_missing_file_is_an_error() -> None:
    for name in ("none.npy", "none.png"):
        with pytest.raises(VitcError, match="There is no file none"):
            read_inputs([Path(name)], CONFIG, SHOWN)


def test_the_first_value_that_is_not_finite_is_named() -> None:
    pixels = np.zeros((2, 3, 32, 32), np.float32)
    pixels[1, 2, 3, 4] = np.inf

    with pytest.raises(VitcError, match=r"inf at \[1, 2, 3, 4\]"):
        validated(pixels, CONFIG, "x")


def test_the_best_classes_come_first_with_their_labels_and_probabilities() -> None:
    logits = np.array([[0.0, 2.0, 1.0]], np.float32)

    top = Prediction(("x",), logits, ("a", "b", "c")).top(0, 2)

    assert [entry.label for entry in top] == ["b", "c"]
    assert top[0].probability == pytest.approx(np.exp(2) / (1 + np.exp(1) + np.exp(2)))


def test_without_labels_a_class_is_called_by_its_number() -> None:
    logits = np.zeros((1, 3), np.float32)

    assert [e.label for e in Prediction(("x",), logits, None).top(0, 9)] == ["0", "1", "2"]


def test_logits_are_written_part_by_part(tmp_path: Path) -> None:
    logits = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    parts = [Prediction(("x",) * len(rows), rows, None) for rows in (logits[:2], logits[2:])]

    assert list(write_logits(parts, 5, 3, tmp_path / "l.npy")) == parts

    np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), logits)


def test_a_description_without_preprocessing_falls_back_to_that_of_the_image_size() -> None:
    found = Description._read(Path("x"), CONFIG.to_dict(), {}, [])

    assert found.preprocessing == Preprocessing.for_image_size(32)
    assert found.labels is None


@pytest.mark.parametrize(
    ("config", "labels", "words"),
    [({}, [], "which network"), (CONFIG.to_dict(), ["one"], "1 labels for 10 classes")],
)
def test_a_description_that_does_not_hold_together_is_an_error(config, labels, words) -> None:
    with pytest.raises(VitcError, match=words):
        Description._read(Path("x"), config, None, labels)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((2, 32, 32, 3), "save x.transpose(0, 3, 1, 2)"),
        ((32, 32, 3), "save x[None].transpose(0, 3, 1, 2)"),
        ((3, 32, 32), "save x[None]."),
        ((2, 3, 24, 24), "resize the images"),
    ],
)
def test_the_hint_for_an_array_of_another_shape_fits_it(shape, hint) -> None:
    with pytest.raises(VitcError) as caught:
        validated(np.zeros(shape, np.float32), PRESETS["micro"].config, "x.npy")

    assert hint in caught.value.hint
