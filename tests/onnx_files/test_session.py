from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vitc.errors import VitcError
from vitc.onnx_files import load_onnx, run_with_taps, session, tap_names


def test_chosen_taps_come_back_by_name(exported, images) -> None:
    names = ["blocks.1.attn.scores", "blocks.0.mlp.hidden"]
    values = run_with_taps(exported["packed"].path, images.numpy(), names)
    assert list(values) == names
    assert values[names[0]].shape == (3, 3, 5, 5)
    assert values[names[0]].dtype == np.int32
    assert values[names[1]].shape == (3, 5, 40)


def test_an_open_session_serves_many_batches(exported, images) -> None:
    model, _ = load_onnx(exported["packed"].path)
    opened = session(model, [*tap_names(model)])
    together = run_with_taps(opened, images.numpy())
    assert list(together) == tap_names(model)
    for index in range(3):
        alone = run_with_taps(opened, images[index : index + 1].numpy())
        for name, value in alone.items():
            if value.dtype != np.float32:
                np.testing.assert_array_equal(value[0], together[name][index], err_msg=name)


def test_asking_for_taps_does_not_change_the_model(exported, images) -> None:
    model, _ = load_onnx(exported["packed"].path)
    run_with_taps(model, images.numpy(), ["embedding"])
    assert [value.name for value in model.graph.outputs] == ["logits"]


def test_an_unknown_tap_is_named(exported, images) -> None:
    with pytest.raises(VitcError, match=r"no value blocks\.9\.attn\.input"):
        run_with_taps(exported["packed"].path, images.numpy(), ["blocks.9.attn.input"])


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 16, 24), (1, 1, 16, 16)])
def test_images_of_another_size_are_refused(exported, shape) -> None:
    with pytest.raises(VitcError, match="takes images"):
        run_with_taps(exported["packed"].path, np.zeros(shape, np.float32))


def test_a_model_that_the_runtime_refuses_is_one_sentence(exported) -> None:
    model, _ = load_onnx(exported["packed"].path)
    node = next(node for node in model.graph if node.op_type == "Transpose")
    node.attributes["perm"] = type(node.attributes["perm"])("perm", 7, (0, 9, 1))
    with pytest.raises(VitcError, match="ONNX Runtime refuses") as caught:
        session(model)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_explained(tmp_path) -> None:
    with pytest.raises(VitcError, match="cannot be read"):
        session(tmp_path / "missing.onnx")


@pytest.mark.parametrize("module", ["vitc.dialect", "vitc.dialect.bodies", "vitc.exporter"])
def test_importing_does_not_import_torch(module) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
