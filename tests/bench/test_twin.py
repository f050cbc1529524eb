"""The model that bench times an artefact against is the twin of its network."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from tests.models.twin_checkpoints import CONFIGS, random_twin
from vitc.bench.twin import twin_model
from vitc.errors import VitcError
from vitc.models import PRESETS, build_network
from vitc.models.architectures import architecture
from vitc.onnx_files import session


def test_the_twin_of_deit_tiny_has_the_parameters_of_deit_tiny() -> None:
    # facebookresearch/deit: deit_tiny_patch16_224 has 5,717,416 parameters.
    config = architecture("sibivit").twin(PRESETS["deit-tiny"].config)
    with torch.device("meta"):
        network = build_network(config)
    assert sum(p.numel() for p in network.parameters()) == 5_717_416


@pytest.mark.parametrize("batch", [1, 3])
def test_the_twin_is_a_standard_model_of_a_fixed_batch(batch: int) -> None:
    model = twin_model(PRESETS["micro"].config, batch)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    images = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), dtype=np.float32)
    (logits,) = session(ir.from_proto(model)).run(None, {"input": images})
    assert logits.shape == (batch, 10)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("arch", CONFIGS)
def test_what_is_timed_computes_what_the_twin_computes(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_twin(CONFIGS[arch])
    monkeypatch.setattr("vitc.bench.twin.build_network", lambda _: network)
    model = twin_model(CONFIGS[arch], 2)
    onnx.checker.check_model(model, full_check=True)
    images = torch.randn(2, *CONFIGS[arch].input_shape, generator=torch.Generator().manual_seed(3))
    (logits,) = session(ir.from_proto(model)).run(None, {"input": images.numpy()})
    with torch.no_grad():
        expected = network.double()(images.double())
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(VitcError, match="at least one image"):
        twin_model(PRESETS["micro"].config, 0)
