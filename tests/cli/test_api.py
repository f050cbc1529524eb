from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import vitc


@pytest.mark.parametrize("name", vitc.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(vitc, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = vitc.no_such_thing


@pytest.mark.parametrize(
    "first", ["import vitc", "import vitc.bench", "from vitc.bench import bench"]
)
def test_bench_can_be_called_whatever_was_imported_first(first: str) -> None:
    lines = [first, "import vitc", "try:", " vitc.bench('/nowhere')"]
    code = "\n".join([*lines, "except vitc.VitcError:", " print('ok')"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)

    assert done.stdout.strip() == "ok", done.stderr


def test_an_opened_artefact_is_called_on_arrays(built) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)

    logits = vitc.open(built.artefact)(images)

    assert logits.shape == (3, 10)
    assert vitc.load(built.checkpoint).config.classes == 10


def test_a_model_in_memory_is_a_reference_as_good_as_its_file(built) -> None:
    model = vitc.load(built.checkpoint)

    report = vitc.check(built.onnx, model, vitc.CheckOptions(images=1))

    assert report.equal
