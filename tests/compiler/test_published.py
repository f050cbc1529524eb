"""Networks that others published, built of vitc.nn and torch: exported, compiled and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vitc
from tests.compiler.published import BHViT, BinaryViT
from tests.randomised import randomised
from vitc.compiler import compile_model
from vitc.verify import CheckOptions, check

PUBLISHED = {"binaryvit": BinaryViT, "bhvit": BHViT}


@pytest.fixture(scope="module", params=PUBLISHED)
def exported(request, tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(1)
    model = randomised(PUBLISHED[request.param](), 1)
    out = tmp_path_factory.mktemp(request.param) / "m.onnx"
    vitc.export(model, out, example=torch.zeros(1, 3, 32, 32))
    return model, out


@pytest.mark.parametrize(("target", "device"), [("native", "local"), ("arm", "qemu")])
def test_every_value_is_that_of_the_model(
    exported, tmp_path, capfd, need_emulator, target, device
):
    if device == "qemu":
        need_emulator("aarch64")
    model, file = exported
    artefact = compile_model(file, target, tmp_path / "a")
    assert capfd.readouterr().err == ""
    report = check(artefact.path, model, CheckOptions(images=3, device=device, rebuild=False))
    assert report.equal, (report.first_difference, report.faults)
    assert {"first.attended", "merged", "second.output"} <= {each.name for each in report.layers}


def test_shifted_tokens_are_read_where_they_lie(exported, tmp_path):
    artefact = compile_model(exported[1], "x86", tmp_path / "a")
    kernels = [step.kernel for step in artefact.manifest.steps]
    copies = [kernel for kernel in kernels if kernel.startswith(("vitc_take", "vitc_reshape_0"))]
    # Of BHViT's branches only the four quarters of channels, which are shifted apart, are copied.
    assert len(copies) == (2 if "bhvit" in str(exported[1]) else 0)
