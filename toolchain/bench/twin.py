"""The full-precision twin of a network as a standard ONNX model: what a user would run instead.

Its weights are random, because time does not depend on them, and its batch is fixed, so that ONNX
Runtime may fuse it as it likes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.exporter import build
from vitc.models.architectures import architecture
from vitc.models.build import build_network
from vitc.models.config import NetworkConfig

if TYPE_CHECKING:
    import onnx

__all__ = ["twin_model"]

_SEED = 0


def twin_model(config: NetworkConfig, batch: int = 1) -> onnx.ModelProto:
    """Export the twin of a network.

    Args:
        config: Of the network; a twin is its own.
        batch: Images in one run.

    Returns:
        A model with input ``input`` [batch, 3, H, W] and output ``logits`` [batch, classes], fp32.

    Raises:
        VitcError: If `batch` is less than 1.
    """
    if batch < 1:
        raise VitcError(f"A batch has at least one image, found {batch}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        plain = replace(config, embedding="fp32")
        network = build_network(architecture(config.arch).twin(plain)).eval()
    exported, _ = build(network)
    made: onnx.ModelProto = to_proto(exported)
    for value in (*made.graph.input, *made.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_value = batch
    # Shapes inside were found for any number of images.
    del made.graph.value_info[:]
    return made
