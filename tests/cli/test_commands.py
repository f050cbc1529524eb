from __future__ import annotations

import json
import shutil
from inspect import signature

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.processors import HAS_AMX
from vitc import api
from vitc.bench import tile_cache, tuning
from vitc.bench.estimate import find_llvm_mca
from vitc.cli.main import train
from vitc.errors import VitcError
from vitc.models import load, save
from vitc.places import Cache
from vitc.runtime.artefact import Artefact
from vitc.targets.tiles import other_tiles
from vitc.training import TrainOptions


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(1).standard_normal((3, 3, 32, 32), dtype=np.float32))
    return path


def tampered(built, folder, change):
    """A copy of the artefact whose ONNX file went through `change`."""
    copy = folder / "tampered"
    shutil.copytree(built.artefact, copy)
    model = onnx.load(copy / "model.onnx")
    change(model)
    onnx.save(model, copy / "model.onnx")
    return copy


def nth(model, kind, index=0):
    return [node for node in model.graph.node if node.op_type == kind][index]


def edit(model, name, change):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values.reshape(-1))
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def flip_weight(model):
    def change(values):
        values[9] ^= 4

    node = nth(model, "BinaryLinearThreshold", 3)
    edit(model, node.input[1], change)
    return node.output[0]


def swap_threshold_sign(model):
    def change(values):
        values[5] = ~values[5]

    node = nth(model, "Binarize", 1)
    edit(model, node.input[2], change)
    return node.output[0]


def widen_slack(model):
    node = nth(model, "RowBestMask")
    next(a for a in node.attribute if a.name == "slack").i += 1
    return node.output[0]


@pytest.mark.parametrize("change", [flip_weight, swap_threshold_sign, widen_slack])
def test_check_names_the_layer_of_a_fault_in_the_artefacts_onnx_file(
    vitc, built, tmp_path, change
) -> None:
    faulty: list[str] = []
    copy = tampered(built, tmp_path, lambda model: faulty.append(change(model)))

    outcome = vitc(
        "check", copy, "--reference", built.checkpoint, "--json", "-", "--images", 2, "--no-rebuild"
    )

    assert outcome.code == 3
    report = outcome.json
    assert report["verdict"].startswith(
        f"not equal: its ONNX file: first difference at {faulty[0]}: "
    )
    assert report["equal"] is False
    assert report["first_difference"] == faulty[0]
    assert report["onnx"]["equal"] is False
    assert report["faults"] == ["model.onnx is not the file that the manifest names"]
    assert all(layer["mismatches"] == 0 for layer in report["layers"])


def test_check_of_an_untouched_artefact_is_exit_code_0(vitc, built, tmp_path) -> None:
    file = tmp_path / "report.json"

    outcome = vitc("check", built.artefact, "--reference", built.checkpoint, "--json", file)

    assert outcome.code == 0
    assert outcome.out.startswith(f"equal: {built.artefact} on local\n")
    report = json.loads(file.read_text())
    assert report["equal"] is True
    assert report["first_difference"] is None
    assert report["library"] == "byte for byte what model.onnx compiles to"
    assert report["max_logit_difference"] < 1e-4
    assert report["top1_agreement"] == 1.0


def test_check_with_data_gives_the_accuracy_of_both(vitc, built) -> None:
    outcome = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--data", "digits", "--json", "-"
    )

    accuracy = outcome.json["accuracy"]
    assert outcome.json["images"] == 360
    assert 0 < accuracy["reference"] < 1
    assert accuracy["reference"] == accuracy["candidate"]


def test_check_per_layer_lists_the_layers(vitc, built) -> None:
    outcome = vitc("check", built.onnx, "--reference", built.checkpoint, "--per-layer")

    assert "blocks.0.attn.mask" in outcome.out


def test_a_changed_library_is_not_equal_even_where_the_numbers_are(vitc, built, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built.artefact, copy)
    with (copy / "libvitc_model.so").open("ab") as library:
        library.write(b"\0")

    outcome = vitc("check", copy, "--reference", built.checkpoint, "--no-rebuild")

    assert outcome.code == 3
    first = outcome.out.partition("\n")[0]
    assert first == "not equal: libvitc_model.so is not the file that the manifest names"


def test_a_reference_that_is_another_checkpoint_is_said_in_the_first_line(
    vitc, built, tmp_path
) -> None:
    other, again = tmp_path / "other.safetensors", tmp_path / "again.safetensors"
    save(api.new("micro", depth=1, seed=3), other)
    model = load(built.checkpoint)
    model.history = {"saved": "again"}
    save(model, again)

    differs = vitc("check", built.onnx, "--reference", other, "--images", 1)
    same = vitc("check", built.onnx, "--reference", again, "--images", 1)

    first = differs.out.partition("\n")[0]
    assert differs.code == 3
    assert first.startswith("not equal: made from another checkpoint than the reference; first ")
    assert "embedding" in first
    assert "more parameters" in first
    assert same.code == 0
    assert same.out.startswith(f"equal: {built.onnx} on onnxruntime, though made from another ")


def test_layers_are_listed_only_when_they_are_asked_for(vitc, built, tmp_path) -> None:
    copy = tampered(built, tmp_path, flip_weight)
    plain, listed = (
        vitc("check", copy, "--reference", built.checkpoint, "--images", 1, "--no-rebuild", *more)
        for more in ((), ("--per-layer",))
    )
    assert plain.code == listed.code == 3
    assert "largest error" not in plain.out
    assert "largest error" in listed.out


def test_run_gives_the_same_logits_as_the_onnx_file(vitc, built, array, tmp_path) -> None:
    for name, model in (("a", built.artefact), ("o", built.onnx)):
        assert vitc("run", model, array, "--out", tmp_path / f"{name}.npy").code == 0

    native, portable = np.load(tmp_path / "a.npy"), np.load(tmp_path / "o.npy")
    assert native.shape == (3, 10)
    np.testing.assert_allclose(native, portable, atol=1e-4)


def test_run_shows_the_best_classes_of_an_image_best_first(vitc, built, tmp_path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)).save(path)

    outcome = vitc("run", built.artefact, path, "--topk", 3, "--json", "-")

    (entry,) = outcome.json["inputs"]
    logits = [ranked["logit"] for ranked in entry["top"]]
    assert entry["name"] == str(path)
    assert len(logits) == 3
    assert logits == sorted(logits, reverse=True)
    assert 0 < sum(ranked["probability"] for ranked in entry["top"]) <= 1


def test_bench_writes_the_documented_json(vitc, built, tmp_path) -> None:
    outcome = vitc("bench", built.artefact, "--runs", 30, "--json", "-")

    report = outcome.json
    assert outcome.code == 0
    for side in (report["latency_ms"], report["baseline"]["latency_ms"]):
        assert 0 < side["min"] <= side["p10"] <= side["median"] <= side["p90"]
    assert report["threads"] == 1
    assert report["runs"] == 30
    assert report["baseline"]["name"] == "onnxruntime"
    medians = report["baseline"]["latency_ms"]["median"], report["latency_ms"]["median"]
    assert report["ratio"] == pytest.approx(medians[0] / medians[1])
    assert report["machine"]["cpu"]


@pytest.mark.parametrize("baseline", ["packed", "onnxruntime-int8"])
def test_bench_knows_other_baselines(vitc, built, baseline) -> None:
    outcome = vitc("bench", built.artefact, "--runs", 30, "--baseline", baseline, "--json", "-")

    assert outcome.json["baseline"]["name"] == baseline


def test_bench_without_a_baseline_has_no_ratio(vitc, built) -> None:
    outcome = vitc("bench", built.artefact, "--runs", 30, "--baseline", "none", "--json", "-")

    assert outcome.json["baseline"] is None
    assert outcome.json["ratio"] is None


@pytest.fixture
def beyond(built, tmp_path):
    """An artefact that this machine can only model."""
    if HAS_AMX:
        pytest.skip("this processor has AMX")
    try:
        find_llvm_mca()
    except VitcError as error:
        pytest.skip(str(error))
    return api.compile(
        built.onnx, tmp_path / "amx", api.CompileOptions(target="x86-amx", check=False)
    ).path


def test_bench_models_what_nothing_here_runs_and_times_nothing(vitc, beyond) -> None:
    outcome = vitc("bench", beyond, "--estimate", "sapphire-rapids", "--json", "-")

    assert outcome.code == 0
    assert "lacks amx_int8, amx_tile" in outcome.err
    assert outcome.json["latency_ms"] is None
    assert outcome.json["estimate"]["modelled"] is True


def test_bench_has_no_report_of_times_that_were_not_taken(vitc, beyond, tmp_path) -> None:
    path = tmp_path / "r.html"
    outcome = vitc("bench", beyond, "--estimate", "sapphire-rapids", "--report", path)

    assert outcome.code == 1
    assert not path.exists()


def test_tune_shows_a_tile_for_every_product(vitc, built, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tile_cache, "find_cache", lambda: Cache(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "other_tiles", lambda isa: other_tiles(isa)[:1])
    copy = shutil.copytree(built.artefact, tmp_path / "copy")
    outcome = vitc("tune", copy, "--rounds", 1, "--runs", 1, "--json", "-")

    products = {choice["kernel"] for choice in outcome.json["kernels"]}
    assert {"vitc_float_linear_0", "vitc_attention_0"} <= products
    # Products on AMX tiles have no register tile to try others of.
    assert HAS_AMX or "vitc_residual_0" in products
    assert all(choice["usual_ms"] > 0 for choice in outcome.json["kernels"])
    assert outcome.json["replaced"] in {True, False}
    assert Artefact.open(copy).path == copy


@pytest.mark.parametrize("kind", ["checkpoint", "onnx", "artefact"])
def test_inspect_gives_the_same_account_for_every_form_of_a_network(vitc, built, kind) -> None:
    report = vitc("inspect", getattr(built, kind), "--json", "-").json

    assert report["kind"] == kind
    assert report["totals"]["binary_weights"] == 12288 + 4096 + 2 * 8192 + 2 * 17 * 17
    assert bool(report["kernels"]) == (kind == "artefact")


def test_inspect_names_a_kernel_for_every_layer_that_computes(vitc, built) -> None:
    report = vitc("inspect", built.artefact, "--json", "-").json

    computing = [
        layer["name"] for layer in report["layers"] if layer["binary_macs"] or layer["fp_macs"]
    ]
    assert [name for name in computing if name not in report["kernels"]] == []


def test_new_takes_the_sizes_it_is_asked_for(vitc, tmp_path) -> None:
    path = tmp_path / "m.safetensors"

    made = vitc(
        "new",
        "micro",
        "--depth",
        2,
        "--no-si",
        "--mlp-ratio",
        4,
        "--image-size",
        48,
        "--classes",
        7,
        "--out",
        path,
    )
    config = vitc("inspect", path, "--json", "-").json["config"]

    assert made.code == 0
    assert config["depth"] == 2
    assert config["si"] is False
    assert config["hidden"] == 4 * 64
    assert config["image_size"] == 48
    assert config["classes"] == 7


def test_new_with_the_same_seed_makes_the_same_file(vitc, tmp_path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.safetensors"
        vitc("new", "micro", "--depth", 1, "--seed", seed, "--out", out)

    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("scheme", ["int8", "float"])
def test_export_checks_the_other_schemes_too(vitc, built, tmp_path, scheme) -> None:
    out = tmp_path / "m.onnx"

    assert vitc("export", built.checkpoint, "--scheme", scheme, "--out", out).code == 0
    assert vitc("check", out, "--reference", built.checkpoint, "--images", 1).code == 0


def test_compile_writes_the_result_of_its_check_into_the_manifest(built) -> None:
    check = json.loads((built.artefact / "manifest.json").read_text())["check"]

    assert check["equal"] is True
    assert check["device"] == "local"


def test_no_check_is_written_into_the_manifest(vitc, built, tmp_path) -> None:
    vitc("compile", built.onnx, "--out", tmp_path / "a", "--no-check")

    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["check"].startswith("skipped")


def test_models_and_targets_are_tables(vitc) -> None:
    presets = {entry["name"]: entry for entry in vitc("models", "--json", "-").json["models"]}
    targets = {entry["name"] for entry in vitc("targets", "--json", "-").json["targets"]}

    assert presets["deit-small"]["totals"]["binary_weights"] > 15e6
    assert {"arm", "armv7", "x86", "x86-avx512", "x86-amx"} <= targets


def test_doctor_finds_what_is_installed_here(vitc) -> None:
    outcome = vitc("doctor", "--json", "-")

    states = {finding["what"]: finding["state"] for finding in outcome.json["findings"]}
    assert outcome.code == 0
    assert states["torch"] == states["apache-tvm"] == states["linker"] == "ok"


def test_json_to_stdout_leaves_nothing_else_there(vitc) -> None:
    assert vitc("models", "--json", "-").out.lstrip().startswith("{")


def test_training_options_of_the_command_default_to_those_of_the_library(tmp_path) -> None:
    library = TrainOptions(out=tmp_path / "m.safetensors")
    given = {name: option.default for name, option in signature(train).parameters.items()}

    for name in ("preset", "data", "epochs", "batch_size", "learning_rate", "seed", "weight_bits"):
        assert given[name] == getattr(library, name), name
