"""Towers learn from pictures with captions, go on where they stopped, and shrink."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from typer.testing import CliRunner

from vitc.cli.main import app
from vitc.errors import VitcError
from vitc.models import load
from vitc.models.architectures import twin_preset
from vitc.models.build import build_network
from vitc.models.checkpoint import save
from vitc.models.preprocessing import SMALL_PICTURES
from vitc.models.retrieval.network import Retrieval
from vitc.training.epoch_order import Share
from vitc.training.objectives.retrieval import Ranking, Shrinking
from vitc.training.retrieval.judged import Judged, chance, recalls
from vitc.training.retrieval.losses import ranking_loss, shrink_loss
from vitc.training.retrieval.options import RetrievalOptions, ShrinkOptions
from vitc.training.retrieval.run import shrink, train

SMALL = {"batch_size": 8, "epochs": 2, "float_epochs": 1, "threads": 1}


def ignore(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Squares of a colour at a place, with two captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    colours = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
    captions, names = {}, []
    for colour, ink in colours.items():
        for place in range(8):
            name = f"{colour}{place}.png"
            pixels = np.full((32, 32, 3), 240, np.uint8)
            row, column = divmod(place, 3)
            pixels[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = ink
            Image.fromarray(pixels).save(folder / name)
            captions[name] = [f"a {colour} square at {place}", f"{place} has {colour}"]
            names.append(name)
    splits = {"train": names[:-8], "dev": names[-8:-4], "test": names[-4:]}
    (folder / "captions.json").write_text(json.dumps({"captions": captions, "splits": splits}))
    return str(folder)


def options(data: str, out: Path, **changed: object) -> RetrievalOptions:
    given = {"mode": "inflate", "codes": 3, "depth": 1, "text_layers": 1, "text_width": 32}
    return RetrievalOptions(out=out, data=data, **{**SMALL, **given, **changed})


@pytest.fixture(scope="module")
def inflated(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("inflated") / "i.safetensors"
    result = train(options(data, out))
    assert [report.stage for report in result.history] == ["float", "packed"]
    assert result.curve.is_file()
    stated = json.loads(result.history_file.read_text())
    assert stated["best"]["test"] == result.test
    assert (result.test_images, result.test_texts) == (4, 8)
    return out


def test_towers_are_packed_and_say_how_they_learnt(inflated):
    towers = load(inflated)
    assert isinstance(towers, Retrieval)
    assert towers.config.packed
    assert towers.config.binarized
    assert towers.config.codes == 3
    assert towers.history["options"]["mode"] == "inflate"
    assert set(towers.history["test"]) == {
        f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)
    }


def test_binarized_towers_keep_the_text_tower_and_the_words_of_their_twin(data, tmp_path):
    """The twin's vectors are signs already, so what a text gives does not change any more."""
    given = options(data, tmp_path / "i.safetensors")
    objective = Ranking(given, ignore)
    objective.model.train()
    pixels, words = objective.examples.__getitems__(range(8))
    objective.prepare(Accelerator())
    objective.share = Share.whole(8)
    first = objective.losses(objective.model, (pixels, words), torch.Generator().manual_seed(1))
    assert set(first.parts) == {"ranking", "contrast"}
    twin = objective.model.towers.eval()
    assert twin.config.packed
    assert not twin.config.binarized
    before = twin.given(twin.text_rows(words))
    objective.enter(1)
    objective.model.train()
    draws = torch.Generator().manual_seed(1)
    losses = objective.losses(objective.model, (pixels, words), draws)
    losses.total.backward()
    towers = objective.model.towers
    assert set(losses.parts) == {"apart from the twin"}
    assert all(parameter.grad is None for parameter in towers.text.parameters())
    assert towers.image.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in objective.model.guide.parameters())
    after = towers.eval()
    assert torch.equal(after.given(after.text_rows(words)), before)
    shares = {objective.rate_share(name) for name, _ in objective.model.named_parameters()}
    assert shares == {given.packed_rate / given.learning_rate}


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one(data, inflated, tmp_path, stop):
    out = tmp_path / "i.safetensors"

    def interrupt(report):
        if report.epoch == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(data, out), interrupt)
    train(options(data, out, resume=True))
    wanted, found = load(inflated).state_dict(), load(out).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_ranking_loss_can_stand_alone_and_places_begin_as_large_as_patches(data, tmp_path):
    notes = list[str]()
    alone = Ranking(options(data, tmp_path / "a.safetensors", contrast=0.0), notes.append)
    both = Ranking(options(data, tmp_path / "b.safetensors"), notes.append)
    scores = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    given = [each.loss(torch.empty(0), torch.empty(0), scores) for each in (alone, both)]
    assert torch.equal(given[0].total, ranking_loss(scores, 0.6))
    assert not given[0].parts
    torch.testing.assert_close(given[1].total, sum(given[1].parts.values()))
    # As if a teacher were sure of the pairs, at 16 times the mean of a text's 11 products.
    sure = shrink_loss(100 * torch.eye(8), scores, teacher_scale=1, student_scale=16 / 11)
    torch.testing.assert_close(given[1].parts["contrast"], 2 * sure)
    equal = [float(each.loss(scores, scores, torch.ones(8, 8)).total) for each in (alone, both)]
    assert [
        f"the loss is {value:.0f} where all" in note
        for value, note in zip(equal, [note for note in notes if "where all" in note], strict=True)
    ] == [True, True]
    image = both.model.towers.image
    assert 0.2 < float(image.pos_embed.detach().std()) < 0.35


@pytest.mark.parametrize(("to", "rows"), [("base", 17), ("fast", 17)])
def test_a_student_begins_with_the_encoders_of_its_teacher(data, inflated, tmp_path, to, rows):
    given = ShrinkOptions(out=tmp_path / "s.safetensors", teacher=inflated, to=to, data=data)
    objective = Shrinking(dataclasses.replace(given, **{**SMALL, "float_epochs": 0}), ignore)
    assert objective.stages == (2,)
    teacher, student = load(inflated).state_dict(), objective.model.towers.state_dict()
    for name in ("text.blocks.0.mlp.fc1.weight", "image.blocks.0.attn.qkv.weight"):
        assert torch.equal(student[name], teacher[name])
    # Of what belongs to rows, those that the student has: codes stand behind the tokens.
    for name in ("image.blocks.0.norm1.running_mean", "image.norm.weight"):
        assert len(teacher[name]) == rows + 3
        assert torch.equal(student[name], teacher[name][:rows])
    fresh = Shrinking(dataclasses.replace(given, **SMALL), ignore)
    own = fresh.model.towers.state_dict()
    assert torch.equal(own["text.word.weight"], teacher["text.word.weight"])
    for name in ("text.blocks.0.mlp.fc1.weight", "image.blocks.0.attn.qkv.weight"):
        assert not torch.equal(own[name], teacher[name])


@pytest.mark.parametrize(("to", "vectors"), [("base", (17, 8)), ("fast", (1, 1))])
def test_only_encoders_of_the_student_change(data, inflated, tmp_path, to, vectors):
    before = inflated.read_bytes()
    out = tmp_path / "s.safetensors"
    result = shrink(ShrinkOptions(out=out, teacher=inflated, to=to, data=data, **SMALL))
    assert inflated.read_bytes() == before
    teacher, student = load(inflated), load(out)
    assert (student.config.image_vectors, student.config.text_vectors) == vectors
    given, kept = teacher.state_dict(), student.state_dict()
    for name in ("text.word.weight", "text.positions", "image.patch_embed.proj.weight"):
        assert torch.equal(given[name], kept[name])
    for name in ("text.blocks.0.mlp.fc1.weight", "image.blocks.0.attn.qkv.weight"):
        assert not torch.equal(given[name], kept[name])
    shrunken, followed = (report.parts for report in result.history)
    assert shrunken["above the least"] >= 0
    assert 0 <= followed["apart from the twin"] <= 2


def test_the_distillation_falls_towards_the_entropy_of_the_teacher(data, tmp_path):
    teacher = tmp_path / "t.safetensors"
    train(options(data, teacher, full_precision=True, floats=True))
    chosen = {**SMALL, "epochs": 25, "float_epochs": 0}
    out = tmp_path / "s.safetensors"
    wanted = ShrinkOptions(out=out, teacher=teacher, to="base", data=data, **chosen)
    history = shrink(wanted).history
    first, last = (history[i].parts["above the least"] for i in (0, -1))
    assert 0 < last < 0.8 * first


def test_what_does_not_fit_is_refused(data, inflated, tmp_path):
    out = tmp_path / "x.safetensors"
    base = tmp_path / "b.safetensors"
    shrink(ShrinkOptions(out=base, teacher=inflated, to="base", data=data, **SMALL))
    with pytest.raises(VitcError, match="as many interactions"):
        Shrinking(ShrinkOptions(out=out, teacher=base, to="base", data=data), ignore)
    with pytest.raises(VitcError, match="of the full-precision twin"):
        Ranking(options(data, out, float_epochs=2), ignore)
    with pytest.raises(VitcError, match="Mode base has no codes"):
        options(data, out, mode="base")
    with pytest.raises(VitcError, match="base or fast"):
        dataclasses.replace(ShrinkOptions(out=out, teacher=base, to="fast"), to="slow")


def test_the_image_tower_begins_with_a_twin_that_was_pre_trained(data, tmp_path):
    file, notes = tmp_path / "t.safetensors", list[str]()
    torch.manual_seed(5)
    twin = build_network(twin_preset("micro").config.replace(depth=1), SMALL_PICTURES)
    save(twin, file)
    out = tmp_path / "i.safetensors"
    objective = Ranking(options(data, out, start=file), notes.append)
    assert any("copied from" in note for note in notes)
    towers = objective.model.towers
    given, begun = twin.state_dict(), towers.image.state_dict()
    for name in ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"):
        assert torch.equal(begun[name], given[name]), name
    assert begun["head.weight"].shape != given["head.weight"].shape
    objective.enter(1)
    packed = objective.model.towers.image
    assert torch.equal(packed.blocks[0].attn.qkv.weight, given["blocks.0.attn.qkv.weight"])
    assert objective.described()["start"] == load(file).source_sha256


def test_commands_name_what_they_write_after_what_it_is(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--data", data, "--epochs", "1", "--float-epochs", "0", "--threads", "1"]
    small += ["--batch-size", "8", "--quiet"]
    sizes = ["--mode", "inflate", "--codes", "2", "--depth", "1", "--text-layers", "1"]
    given = {
        "inflate": ["train", *sizes, *small],
        "inflate-fast": ["shrink", "--teacher", "inflate.safetensors", "--to", "fast", *small],
    }
    for name, words in given.items():
        done = CliRunner().invoke(app, ["retrieve", *words])
        assert done.exit_code == 0, done.output
        assert load(f"{name}.safetensors").config.mode == name.rpartition("-")[2]


def test_chance_is_what_random_scores_give():
    source = torch.Generator().manual_seed(1)
    owner = torch.arange(40).repeat_interleave(3)
    judged = Judged(torch.zeros(40, 1), torch.zeros(120, 1), owner)
    found = [recalls(torch.rand(40, 120, generator=source), owner) for _ in range(200)]
    for name, expected in chance(judged).items():
        mean = sum(each[name] for each in found) / len(found)
        assert mean == pytest.approx(expected, abs=0.02), name


@pytest.mark.parametrize("preset", ["micro-swin", "micro-pvt", "micro-nest"])
def test_codes_on_several_stages_are_refused_before_anything_is_written(data, tmp_path, preset):
    out = tmp_path / "i.safetensors"
    with pytest.raises(VitcError, match="has stages whose tokens do not") as caught:
        train(options(data, out, preset=preset, mode="inflate"))
    assert "--mode base or fast" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["micro-swin", "micro-pvt", "micro-nest"])
def test_towers_of_several_stages_learn_and_shrink_with_their_front_end(data, tmp_path, preset):
    base = tmp_path / "b.safetensors"
    train(options(data, base, preset=preset, mode="base", codes=None))
    given = {**SMALL, "data": data, "teacher": base, "to": "fast"}
    shrink(ShrinkOptions(out=tmp_path / "f.safetensors", **given))
    teacher, student = load(base).state_dict(), load(tmp_path / "f.safetensors").state_dict()
    front = [name for name in teacher if "patch_embed.proj" in name and ".stages.1" not in name]
    front = [name for name in front if ".stages.2" not in name]
    assert front
    for name in ("text.word.weight", *front):
        assert torch.equal(teacher[name], student[name]), name
