"""Several entries in one artefact: of one file, of several, and the scan of what they give."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import vitc
from tests.compiler.towers import IMAGE_VECTORS, TEXT_VECTORS, WIDTH, Image, Towers, exported
from tests.randomised import randomised
from tests.retrieval.towers import towers
from vitc import api
from vitc.compiler.link import run_zig
from vitc.compiler.pipeline import make_plan
from vitc.dialect.metadata import ENTRIES_KEY
from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models.retrieval.scores import sign_interaction
from vitc.onnx_files import load_onnx, tap_names
from vitc.onnx_files.entries import entry_models
from vitc.runtime import Artefact
from vitc.targets import find
from vitc.verify import CheckOptions


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Towers, dict[str, Path]]:
    return exported(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module", params=["one file", "several files"])
def artefact(request, made, tmp_path_factory) -> Artefact:
    files, out = made[1], tmp_path_factory.mktemp("artefact") / "out"
    if request.param == "one file":
        return api.compile(files["both"], out)
    return api.compile({"image": files["image"], "text": files["text"], "score": None}, out)


def given(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    stream = rng.standard_normal((count, IMAGE_VECTORS, 40), np.float32)
    return stream, rng.integers(0, 30, (count, TEXT_VECTORS))


def test_the_parts_of_a_file_read_and_give_what_is_theirs(made):
    model, facts = load_onnx(made[1]["both"])
    parts = entry_models(model, facts.entries)
    assert {
        name: ([v.name for v in part.graph.inputs], [v.name for v in part.graph.outputs])
        for name, part in parts.items()
    } == {
        "image": (["stream"], ["image"]),
        "text": (["words"], ["text"]),
        "score": (["query", "documents"], ["scores"]),
    }
    assert [len(load_onnx(made[1][name])[0].graph.inputs) for name in ("both", "image")] == [2, 1]


def test_every_entry_runs_and_scores_are_those_of_the_definition(made, artefact):
    assert [entry.name for entry in artefact.manifest.entries] == ["image", "text", "score"]
    assert artefact.manifest.check["equal"]
    stream, words = given(1, 6)
    model = artefact.load(2)
    (images,) = model.run(stream, "image").values()
    (texts,) = model.run(words, "text").values()
    assert images.shape == (6, IMAGE_VECTORS, WIDTH)
    with torch.no_grad():
        wanted = made[0](torch.from_numpy(stream), torch.from_numpy(words))
    # Signs of sums of 40 floats: a few may be of numbers as small as rounding.
    assert (images == wanted["image"].numpy()).mean() > 0.999
    assert (texts == wanted["text"].numpy()).mean() > 0.999
    scores = sign_interaction(torch.from_numpy(images), torch.from_numpy(texts)).numpy()
    for number, text in enumerate(texts):
        ports = {"query": pack_bits(text), "documents": pack_bits(images)}
        assert np.array_equal(model.run(ports, "score")["scores"], scores[:, number])
        assert np.array_equal(artefact.at("score").load().run(ports)["scores"], scores[:, number])


def self_test(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [folder / "vitc-run", "--self-test", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_the_runner_tests_every_entry_or_the_one_that_is_named(artefact):
    steps = {entry.name: len(entry.steps) for entry in artefact.manifest.entries}
    done = self_test(artefact.path, "--threads", "2")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["entries"], said["taps"]) == (3, sum(steps.values()))
    for name, count in steps.items():
        said = json.loads(self_test(artefact.path, "--entry", name).stdout)
        assert (said["entries"], said["taps"]) == (1, count)
    assert "no entry walk" in self_test(artefact.path, "--entry", "walk").stderr


@pytest.mark.parametrize("name", ["image", "text", "score"])
def test_a_self_test_finds_what_is_wrong_in_any_entry(artefact, tmp_path, name):
    entry = artefact.at(name).entry
    changed = shutil.copytree(artefact.path, tmp_path / "changed")
    taps = changed / f"{name}.self_test.taps"
    last = taps.read_text().splitlines()[-1]
    taps.write_text(taps.read_text().replace(last[:64], "0" * 64))
    done = self_test(changed)
    assert done.returncode == 1
    assert f"{entry.steps[-1].tap} (kernel {len(entry.steps) - 1}) is not what" in done.stderr
    shutil.copy(artefact.path / taps.name, taps)

    expected = changed / f"{name}.self_test.expected.npy"
    array = np.load(expected)
    array.flat[-1] += 1
    np.save(expected, array)
    done = self_test(changed)
    assert done.returncode == 1
    assert f"the self-test failed: {entry.outputs[0].name} " in done.stderr


def test_an_entry_without_a_stored_image_is_said_and_the_others_are_tested(artefact, tmp_path):
    changed = shutil.copytree(artefact.path, tmp_path / "changed")
    manifest = changed / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"text.self_test', '"text.other'))
    done = self_test(changed)
    assert json.loads(done.stdout)["entries"] == 2
    assert done.stderr == "vitc-run: note: the entry text has no stored image\n"
    done = self_test(changed, "--entry", "text")
    assert done.returncode == 1
    assert "nothing to test with" in done.stderr


def test_an_entry_that_is_not_there_is_refused_by_name(artefact):
    with pytest.raises(VitcError, match="no entry 'walk'; there is image, text, score"):
        artefact.at("walk")


def test_a_copy_of_an_artefact_stays_at_its_entry(artefact):
    assert pickle.loads(pickle.dumps(artefact.at("text"))).entry.name == "text"  # noqa: S301


def check(artefact: Artefact, made: tuple[Towers, dict[str, Path]], **options):
    if isinstance(artefact.source, Path):
        return [vitc.check(artefact.path, made[0], CheckOptions(**options))]
    return [
        vitc.check(artefact.path, getattr(made[0], name), CheckOptions(entry=name, **options))
        for name in ("image", "text")
    ]


def test_the_check_compares_towers_bytes_and_scores(made, artefact):
    said: list[str] = []
    for report in check(artefact, made):
        assert report.equal, (report.first_difference, report.faults)
        assert "byte for byte" in report.library
        said += [layer.name for layer in report.layers]
    assert {"image.rows", "text.rows"} <= set(said)


def test_a_score_that_is_another_is_named(made, artefact, monkeypatch):
    from vitc.devices import LocalDevice

    honest = LocalDevice.run

    def wrong(self, part, inputs, request):
        done = honest(self, part, inputs, request)
        if part.entry.name == "score" and len(inputs["documents"]) == 41 and not request.trace:
            done.outputs["scores"][40] += 2
        return done

    monkeypatch.setattr(LocalDevice, "run", wrong)
    for report in check(artefact, made, rebuild=False):
        assert not report.equal
        assert any("score: " in fault and "image 40" in fault for fault in report.faults)


def test_of_several_files_a_check_wants_the_entry(made, tmp_path):
    several = {name: made[1][name] for name in ("image", "text")}
    made_of = api.compile(several, tmp_path / "out", api.CompileOptions(check=False))
    with pytest.raises(VitcError, match="several files") as caught:
        vitc.check(made_of.path, made[0].image)
    assert "--entry: image, text" in caught.value.hint
    other = randomised(Image(), 9)
    report = vitc.check(made_of.path, other, CheckOptions(entry="image", rebuild=False))
    assert not report.equal


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"image": "image", "score": None}, "scores what the entries image and text give"),
        ({"Image": "image"}, "'Image' is no name of an entry"),
        ({"model": "image"}, "'model' is no name of an entry"),
        ({"a": "both", "b": "text"}, "has entries of its own: image, text, score"),
        ({}, "no file to compile"),
    ],
)
def test_entries_that_cannot_be_are_refused(made, tmp_path, source, says):
    named = {name: file and made[1][file] for name, file in source.items()}
    with pytest.raises(VitcError, match=says):
        api.compile(named, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "malformed property vitc.entries"),
        ('{"image": {"outputs": []}}', "image is no entry"),
        ('{"image": {"outputs": ["walk"]}}', "gives walk, which is no output"),
        ('{"score": {"query": "a", "documents": "b"}}', "score scans what is no entry"),
        ('{"score": {"query": "a", "documents": "b", "first": 1}}', "score is no entry"),
        ('{"../x": {"outputs": ["image"]}}', "no name of an entry"),
        (
            '{"t": {"outputs": ["text", "image"]}, "s": {"query": "t", "documents": "t"}}',
            "A scan scores bits",
        ),
    ],
)
def test_a_file_that_names_entries_wrongly_is_refused(made, tmp_path, text, says):
    proto = onnx.load(made[1]["both"])
    (prop,) = (entry for entry in proto.metadata_props if entry.key == ENTRIES_KEY)
    prop.value = text
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(VitcError, match=says):
        api.compile(tmp_path / "m.onnx", tmp_path / "out")


def test_the_commands_take_entries(made, tmp_path):
    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "vitc", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    out, files = tmp_path / "out", made[1]
    run("compile", f"image={files['image']}", f"text={files['text']}", "score", "--out", out)
    stream, words = given(4, 3)
    np.save(tmp_path / "s.npy", stream)
    np.save(tmp_path / "w.npy", words.astype(np.int32))
    run("run", out, f"input={tmp_path}/w.npy", "--out", tmp_path / "t.npz", "--entry", "text")
    with np.load(tmp_path / "t.npz") as found:
        assert found["logits"].shape == (3, TEXT_VECTORS, WIDTH)
    said = run("inspect", out)
    for part in ("documents uint8 [n, 5, 5]", "input int32 [N, 7] below 30", "score"):
        assert part in said
    report = tmp_path / "bench.json"
    run("bench", out, "--entry", "score", "--runs", 30, "--no-pin", "--profile", "--json", report)
    assert json.loads(report.read_text())["baseline"]["name"] == "packed"


@pytest.mark.parametrize("target", ["arm", "armv7"])
def test_an_emulated_processor_runs_every_entry(made, tmp_path, need_emulator, target):
    need_emulator(find(target).emulator)
    options = api.CompileOptions(target=target, check=False)
    artefact = api.compile(made[1]["both"], tmp_path / "out", options)
    report = vitc.check(
        artefact.path, made[0], CheckOptions(device="qemu", images=2, rebuild=False)
    )
    assert report.equal, (report.first_difference, report.faults)


def test_several_entries_have_a_prefix_together(made, tmp_path):
    plain, own = (
        api.compile(made[1]["both"], tmp_path / out, api.CompileOptions(symbol_prefix=name))
        for out, name in (("plain", ""), ("own", "towers"))
    )
    stream, words = given(4, 2)
    for name, value in (("image", stream), ("text", words)):
        assert np.array_equal(own.at(name)(value), plain.at(name)(value))
    report = vitc.check(own.path, made[0], CheckOptions(images=2))
    assert report.equal, (report.first_difference, report.faults)
    (tmp_path / "names.c").write_text(
        '#include <stdio.h>\n#include "towers.h"\n'
        "int main(void) {\n  vitc_entry entry;\n"
        "  for (int i = 0; !towers_get_entry(i, &entry); i++) puts(entry.name);\n  return 0;\n}\n"
    )
    machine = ["-target", own.target.runner, "-static", "-pthread", f"-I{own.path}"]
    run_zig([*machine, "names.c", str(own.path / "libtowers.a"), "-o", "names"], tmp_path)
    said = subprocess.run([tmp_path / "names"], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["image", "text", "score"]


@pytest.mark.parametrize("mode", ["base", "fast"])
def test_retrieval_towers_become_three_entries(tmp_path, mode):
    model = towers(mode)
    export(model, tmp_path / "m.onnx")
    loaded, facts = load_onnx(tmp_path / "m.onnx")
    config = model.config
    plans = {
        name: make_plan(part, find("x86"), tap_names(part))
        for name, part in entry_models(loaded, facts.entries).items()
    }
    row = -(-config.width // 8)
    assert [port.shape for port in (*plans["score"].inputs, *plans["score"].written)] == [
        (config.text_vectors, row), (None, config.image_vectors, row), (None,)
    ]  # fmt: skip
    assert [port.shape for port in plans["image"].written] == [(config.image_vectors, config.width)]
    assert [port.shape for port in plans["text"].written] == [(config.text_vectors, config.width)]
