"""Pictures with captions: drawn symbols, and folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitc.errors import VitcError
from vitc.models.preprocessing import SMALL_PICTURES
from vitc.training.retrieval.caption_folder import read_caption_folder
from vitc.training.retrieval.glyphs import COLOURS, PLACES, SIZES, Glyph, Glyphs, symbols


def ignore(_: str) -> None:
    pass


def test_the_captions_are_names_of_unicode_with_what_was_drawn():
    glyph = Glyph("♞", "red", "small", "at the left", 1)
    assert glyph.caption == "a small red black chess knight at the left"
    assert len(symbols()) > 1800
    assert {"☂", "☃", "♞", "☕"} <= set(symbols())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_drawing_has_the_colour_size_and_place_that_its_caption_says(colour):
    for seed, (place, (across, down)) in enumerate(PLACES.items()):
        inks = {}
        for size in SIZES:
            pixels = np.asarray(Glyph("♞", colour, size, place, seed).draw()).astype(int)
            ground = np.median(pixels.reshape(-1, 3), axis=0)
            ink = np.abs(pixels - ground).sum(-1) > 150
            inks[size] = ink.sum()
            y, x = (axis.mean() / 64 for axis in np.nonzero(ink))
            for wanted, seen in ((across, x), (down, y)):
                if wanted == 0.5:
                    assert abs(seen - 0.5) < 0.15
                else:
                    assert (wanted - 0.5) * (seen - 0.5) > 0
            core = np.median(pixels[ink], axis=0)
            near = min(COLOURS, key=lambda name: np.abs(core - COLOURS[name]).sum())
            assert near == colour
        assert inks["big"] > 1.5 * inks["small"]


def test_nothing_that_is_tested_was_learnt_and_epochs_differ():
    data = Glyphs(3)
    test = {picture.captions[0] for picture in data.test}
    validation = {picture.captions[0] for picture in data.validation}
    assert len(test) == len(data.test)
    assert not test & validation
    one, again, other = (data.train(epoch) for epoch in (0, 0, 1))
    drawn = [picture.captions[0] for picture in one]
    assert drawn == [picture.captions[0] for picture in again]
    assert drawn != [picture.captions[0] for picture in other]
    held = {caption.split(" ", 2)[2].rsplit(" ", 3)[0] for caption in test | validation}
    assert not held & {caption.split(" ", 2)[2].rsplit(" ", 3)[0] for caption in drawn}
    assert np.array_equal(one[5].pixels(SMALL_PICTURES), again[5].pixels(SMALL_PICTURES))


def pictures(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 33), (number, 2, 3)).save(folder / name)


def test_a_folder_with_stated_splits_is_read_as_they_say(tmp_path):
    names = [f"a {i}.png" for i in range(14)]
    pictures(tmp_path / "images", names)
    captions = {name: [f"picture {name}", " it  again "] for name in [*names, "gone.png"]}
    splits = {"train": [*names[:6], "gone.png"], "dev": names[6:10], "test": names[10:]}
    (tmp_path / "captions.json").write_text(json.dumps({"captions": captions, "splits": splits}))
    notes: list[str] = []
    data = read_caption_folder(tmp_path, notes.append)
    assert [picture.name for picture in data.train(0)] == names[:6]
    assert [picture.name for picture in data.validation] == names[6:10]
    assert [picture.name for picture in data.test] == names[10:]
    assert data.test[0].captions == ("picture a 10.png", "it again")
    assert "1 captioned names without a picture" in notes[0]
    assert data.test[1].pixels(SMALL_PICTURES).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["captions.tsv", "names.json"])
def test_a_folder_without_splits_keeps_some_of_its_pictures_for_tests(tmp_path, kind):
    names = [f"below/{i}.png" for i in range(300)]
    pictures(tmp_path, names)
    content = {
        "captions.tsv": "".join(f"{name}\tpicture {name}\n" for name in names),
        "names.json": json.dumps({name: {"name": f"picture {name}"} for name in names}),
    }[kind]
    (tmp_path / kind).write_text(content)
    data = read_caption_folder(tmp_path, ignore)
    parts = [data.train(0), data.validation, data.test]
    found = [picture.name for part in parts for picture in part]
    assert sorted(found) == sorted(names)
    assert all(5 <= len(part) <= 30 for part in parts[1:])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (None, "", "no file of captions"),
        ("captions.tsv", "a.png a dog\n", "Line 1 of .* has no tab"),
        ("captions.tsv", "\n", "has no captions"),
        ("captions.tsv", b"a.png\t\xff", "no text in UTF-8"),
        ("captions.json", "[1]", "no JSON object"),
        ("captions.json", "{", "is no JSON"),
        ("captions.json", '{"splits": {}}', "no object 'captions'"),
        ("captions.json", '{"captions": {"a": 3}}', "are no texts"),
        ("captions.json", '{"captions": {"a": "b"}, "splits": {"x": []}}', "a split 'x'"),
        (
            "captions.json",
            '{"captions": {"a": "b"}, "splits": {"train": ["a"], "test": ["a"]}}',
            "in two splits",
        ),
        ("names.json", '{"../x.png": "a dog", "/etc/passwd": "all"}', "0 captioned pictures"),
    ],
)
def test_a_folder_that_is_none_is_refused_in_a_sentence(tmp_path, name, content, says):
    if name is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    with pytest.raises(VitcError, match=says):
        read_caption_folder(tmp_path, ignore)
