"""What goes wrong is one sentence, a hint, an exit code, and no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from vitc.cli.errors import INTERRUPTED, guarded
from vitc.errors import VitcError


def assert_explained(outcome, *words: str) -> None:
    assert outcome.code == 1
    assert outcome.err.count("error: ") == 1
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


def damaged(checkpoint: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(checkpoint)
    change(tensors)
    save_file(tensors, out)
    return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("blocks.0.attn.qkv.weight"), ["blocks.0.attn.qkv.weight", "missing"]),
        (
            lambda t: t.update({"head.bias": torch.zeros(7)}),
            ["head.bias", "(7,)"],
        ),
        (lambda t: t["blocks.0.mlp.fc1.weight"][0].fill_(float("nan")), ["NaN", "mlp.fc1.weight"]),
    ],
    ids=["missing", "shape", "nan"],
)
def test_a_damaged_checkpoint_is_named_and_nothing_is_written(
    vitc, built, tmp_path, change, words
) -> None:
    checkpoint = damaged(built.checkpoint, tmp_path / "bad.safetensors", change)

    outcome = vitc("export", checkpoint, "--out", tmp_path / "m.onnx")

    assert_explained(outcome, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]


def test_a_truncated_onnx_file_is_refused(vitc, built, tmp_path) -> None:
    short = tmp_path / "short.onnx"
    short.write_bytes(built.onnx.read_bytes()[:5000])

    outcome = vitc("compile", short, "--out", tmp_path / "out")

    assert_explained(outcome, "short.onnx")
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_of_somebody_else_is_refused(vitc, tmp_path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph), path)

    assert_explained(vitc("compile", path, "--out", tmp_path / "out"), "no vitc model")
    assert_explained(vitc("run", path, tmp_path / "x.npy"), "no vitc model")


def test_an_unknown_target_lists_the_known(vitc, built, tmp_path) -> None:
    outcome = vitc("compile", built.onnx, "--target", "z80", "--out", tmp_path / "out")

    assert_explained(outcome, "z80", "rpi4", "native")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 64, 64), np.float32), ["[1, 3, 64, 64]", "[B, 3, 32, 32]"]),
        (np.zeros((3, 32, 32), np.float32), ["[3, 32, 32]"]),
        (np.zeros((0, 3, 32, 32), np.float32), ["[0, 3, 32, 32]"]),
        (np.zeros((1, 3, 32, 32), np.float64), ["float64", "float32"]),
        (np.full((1, 3, 32, 32), np.nan, np.float32), ["nan"]),
    ],
    ids=["size", "rank", "empty", "type", "nan"],
)
@pytest.mark.parametrize("model", ["artefact", "onnx"])
def test_an_array_that_does_not_fit_is_refused(vitc, built, tmp_path, array, words, model) -> None:
    np.save(tmp_path / "x.npy", array)

    outcome = vitc("run", getattr(built, model), tmp_path / "x.npy", "--out", tmp_path / "l.npy")

    assert_explained(outcome, *words)
    assert not (tmp_path / "l.npy").exists()


def test_a_file_that_is_no_image_is_refused(vitc, built, tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"not a picture")

    assert_explained(vitc("run", built.artefact, tmp_path / "x.png"), "x.png is not an image")


def test_an_array_beside_other_inputs_is_refused(vitc, built, tmp_path) -> None:
    assert_explained(vitc("run", built.artefact, "a.npy", "b.png"), "beside other inputs")


def test_an_existing_artefact_is_kept_without_force(vitc, built) -> None:
    before = (built.artefact / "manifest.json").read_bytes()

    outcome = vitc("compile", built.onnx, "--out", built.artefact)

    assert_explained(outcome, "--force")
    assert (built.artefact / "manifest.json").read_bytes() == before


def test_another_network_as_reference_is_an_error_that_names_the_difference(
    vitc, built, tmp_path
) -> None:
    vitc("new", "micro", "--depth", 1, "--no-si", "--out", tmp_path / "other.safetensors")

    outcome = vitc("check", built.artefact, "--reference", tmp_path / "other.safetensors")

    assert_explained(outcome, "another network", "si True (not False)")


def test_an_unknown_device_lists_the_known(vitc, built) -> None:
    outcome = vitc("check", built.artefact, "--reference", built.checkpoint, "--device", "moon")

    assert_explained(outcome, "moon", "local, qemu")


def test_an_unknown_baseline_lists_the_known(vitc, built) -> None:
    assert_explained(vitc("bench", built.artefact, "--baseline", "abacus"), "abacus", "packed")


@pytest.mark.parametrize("arguments", [["export"], ["nonsense"], ["new"], ["run", "--x"]])
def test_wrong_usage_is_exit_code_2(vitc, arguments) -> None:
    assert vitc(*arguments).code == 2


def test_an_unknown_exception_says_how_to_get_the_traceback(capsys, monkeypatch) -> None:
    def fail() -> None:
        raise RuntimeError("the cat walked over it\nand more")

    monkeypatch.delenv("VITC_DEBUG", raising=False)
    code = guarded(fail)
    quiet = capsys.readouterr().err
    monkeypatch.setenv("VITC_DEBUG", "1")
    guarded(fail)
    loud = capsys.readouterr().err

    assert code == 1
    assert "RuntimeError: the cat walked over it" in quiet
    assert "VITC_DEBUG=1" in quiet
    assert "Traceback" not in quiet
    assert "Traceback" in loud


def test_ctrl_c_is_exit_code_130_without_a_word(capsys) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert guarded(interrupt) == INTERRUPTED
    assert capsys.readouterr().err == ""


def test_a_failed_write_names_the_file(capsys) -> None:
    def fail() -> None:
        Path("/proc/nothing/here").write_text("x")

    assert guarded(fail) == 1
    assert "/proc/nothing/here" in capsys.readouterr().err


def test_an_error_without_a_hint_has_no_hint_line(capsys) -> None:
    def fail() -> None:
        raise VitcError("That is all.")

    assert guarded(fail) == 1
    assert capsys.readouterr().err == "error: That is all.\n"
