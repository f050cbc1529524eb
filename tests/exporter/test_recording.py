"""What is noted of a network is what it computes, for any number of images."""

# ruff: noqa: ARG005 - not every network reads its weights

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.exporter import recording
from vitc.exporter.capture import capture
from vitc.exporter.recording import PerImage, record
from vitc.exporter.taps import name_taps
from vitc.models.taps import tap
from vitc.onnx_files import session


class Written(nn.Module):
    """A network as its forward function; it has a weight and a buffer."""

    def __init__(self, forward) -> None:
        super().__init__()
        self._forward = forward
        self.weight = nn.Parameter(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
        self.register_buffer("mean", torch.arange(6.0) - 2.5)

    def forward(self, x):
        return self._forward(self, x)


def run(model: nn.Module, *inputs: torch.Tensor) -> list[np.ndarray]:
    model = capture(model.eval(), [each[:2] for each in inputs])
    name_taps(model.graph)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    opened = session(ir.from_proto(proto))
    names = [entry.name for entry in opened.get_inputs()]
    return opened.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})


def windows(x):
    """Windows of 2 tokens, as Swin has them: the first axis is no longer one of images."""
    return x.reshape(-1, 2, x.shape[-1])


def _without_autocast(x):
    with torch.autocast(x.device.type, enabled=False):
        return x.to(torch.float32) * 2


WORKS = {
    "in place, on a tensor of its own": lambda m, x: F.relu_(x + 1).add_(m.mean),
    "in place, on a view that is all that is left": lambda m, x: (x * 2).transpose(1, 2).sub_(1),
    "windows": lambda m, x: windows(torch.softmax(windows(x) @ windows(x).mT, -1)).mean(-1),
    "windows and back": lambda m, x: windows(x + m.mean).view(x.shape[0], 4, 6),
    "its own constants": lambda m, x: x * torch.arange(6.0) + torch.tensor([[0.5], [2], [3], [4]]),
    "rows by a constant": lambda m, x: x.index_select(1, torch.tensor([3, 0, 3])),
    "an index": lambda m, x: x[:, [2, 0]] + x[:, torch.tensor([1, 3])],
    "integers that become floats": lambda m, x: (x > 0).int() * 3 / 2 - m.mean,
    "several results": lambda m, x: torch.cat(x.chunk(3, -1)[1:], 1).unflatten(1, (2, 4)),
    "what is nowhere in the table": lambda m, x: F.hardswish(F.linear(x, m.weight)).cumsum(1),
    "slices and flips": lambda m, x: x.roll(1, 1)[:, 1::2].flip(2) - x[:, :2, -6:],
    "a matrix": lambda m, x: F.linear(x.flatten(1)[:, :6], m.weight, m.weight[:, 0]),
    "a norm without weights": lambda m, x: F.layer_norm(x, (6,)),
    "gelu": lambda m, x: F.gelu(x) - F.gelu(x, approximate="tanh"),
    "a tensor where its input is": lambda m, x: x + torch.ones(4, 1, device=x.device).to(x.device),
    "what is computed by place": lambda m, x: _without_autocast(x) + m.mean,
    "another view of its own tensor": lambda m, x: (x + 1).unsqueeze_(1).squeeze_(1).add_(1),
    "parts of weights": lambda m, x: F.linear(x, m.weight[1:, :]) * m.weight[1:, 0].add(1),
    "numbers of a constant": lambda m, x: x * torch.tensor(3.0).item() + float(torch.tensor(2)),
    "shapes for each image": lambda m, x: x.new_ones(x.shape[0], 1, 1).expand(-1, 4, 6) + x,
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_the_graph_computes_what_the_network_computes(name):
    model = Written(WORKS[name])
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(x.clone())
    (own,) = run(model, x)
    assert own.shape == tuple(wanted.shape)
    np.testing.assert_allclose(own, wanted.numpy(), rtol=0, atol=2e-6)


REFUSED = {
    "data of its input": (lambda m, x: x[:, : int(x.sum())], "depends on the data of its input"),
    "classes": (lambda m, x: F.one_hot(x[:, 0].long()), "depends on the data of its input"),
    "a mask": (lambda m, x: x[x > 0], "depends on the data of its input"),
    "where it is not zero": (lambda m, x: x.nonzero(), "depends on the data of its input"),
    "an array of numpy": (lambda m, x: x + torch.from_numpy(x.numpy()), "could not be traced"),
    "branches on data": (lambda m, x: x if x.sum() > 0 else -x, "depends on the data of its input"),
    "the number of images": (lambda m, x: x / x.shape[0], "the number of images as a number"),
    "a slice as long": (lambda m, x: x[:, : x.shape[0]], "the number of images as a number"),
    "a branch on it": (lambda m, x: x + 1 if x.shape[0] == 2 else x, "depends on how many images"),
    "a row for all images": (lambda m, x: torch.cat((x, x[:1])), "depends on how many images"),
    "its own weights": (lambda m, x: m.weight.mul_(2).sum() + x, "changes its own parameters"),
    "its buffers": (lambda m, x: m.mean.add_(1) + x, "changes its own parameters"),
    "two names of one tensor": (
        lambda m, x: (y := x * 2, z := y.transpose(1, 2), z.relu_())[0],
        "reads a tensor after aten.relu_.default changed it under another name",
    ),
    "a part of a tensor": (lambda m, x: (y := x * 2, y[:, 0].zero_())[0], "under another name"),
    "a linear that does not fit": (lambda m, x: F.linear(x.mT, m.weight), "could not be traced"),
    "a norm that does not fit": (lambda m, x: F.layer_norm(x.mT, (6,)), "could not be traced"),
    "an error of its own": (lambda m, x: x.reshape(7, 1, 9), "could not be traced: shape"),
    "what it returns": (lambda m, x: {"a": [x]}, "returns a list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_can_hold_is_refused_in_a_sentence(name):
    forward, words = REFUSED[name]
    with pytest.raises(VitcError, match=words):
        capture(Written(forward).eval(), torch.zeros(2, 4, 6))


HALVED = torch.library.Library("vitc_tests", "DEF")
HALVED.define("halved(Tensor x) -> Tensor")
HALVED.impl("halved", lambda x: torch.from_numpy(x.numpy()[:, :, ::2].copy()), "CPU")


def test_an_operator_that_does_not_say_its_shape_shows_it():
    model = Written(lambda m, x: torch.ops.vitc_tests.halved(x + 1) * 2)
    noted = record(model.eval(), torch.zeros(2, 4, 6))
    assert noted.outputs["logits"].shape == (PerImage(1), 4, 3)


MADE = {
    "numbers and integers": lambda x, i: (i * 2, i / 2, i + 0.5, x * i, i > 1, x + i[0, 0, 0]),
    "one for many": lambda x, i: (x + i[:1, :, :1], x * x[:, :1], x.new_zeros(()) - i),
    "three": lambda x, i: (torch.where(x > 0, x, i), torch.clamp(i, 0, 2), x.clamp(min=0)),
    "parts": lambda x, i: (torch.cat((x, x[:, :1]), 1), torch.cat((x, i), -1), torch.cat([i, i])),
    "means": lambda x, i: (x.mean((1, 2)), x.mean(-1, True), x.mean(1, dtype=torch.float64)),
    "moved": lambda x, i: (x.mT.roll(1, 1), x.mT + x.mT, (x.mT + i.mT).transpose(0, 1), i.mT.neg()),
    "norms": lambda x, i: (F.layer_norm(x.mT, (4,)), F.batch_norm(x, M, V), F.prelu(x.mT, M[:1])),
    "products": lambda x, i: (F.linear(x, W), F.linear(x[0, 0], W, W[:, 0]), x @ x.mT),
}
W, M, V = torch.randn(5, 6), torch.randn(4), torch.rand(4)


@pytest.mark.parametrize("name", MADE)
def test_shapes_types_and_orders_in_memory_are_those_of_values(name):
    class Made(nn.Module):
        def forward(self, x, i):
            return {str(number): made for number, made in enumerate(MADE[name](x, i))}

    x, i = torch.randn(2, 4, 6), torch.randint(3, (2, 4, 6))
    dataless = recording._run(Made().eval(), (x, i), 2).outputs
    for number, real in Made()(x, i).items():
        own = dataless[number]
        assert (own.shape, own.dtype, own.device) == (real.shape, real.dtype, real.device), number
        assert own.is_contiguous() == real.is_contiguous(), number


def test_an_operator_without_a_form_in_onnx_is_named():
    with pytest.raises(VitcError, match=r"aten\.\w*kthvalue\w*\.\w+ has no form in ONNX"):
        capture(Written(lambda m, x: x.kthvalue(2, -1)[0]).eval(), torch.zeros(2, 4, 6))


def test_dropout_that_goes_on_is_no_identity():
    graph = capture(Written(lambda m, x: F.dropout(x, training=True)).eval(), torch.zeros(2, 4, 6))
    assert any("Dropout" in node.op_type for node in graph.graph)


class Two(nn.Module):
    def forward(self, left, right):
        return {"sum": left + right.sum(1), "least": tap("net.least", left - 1)}


def test_inputs_and_outputs_keep_their_names():
    left, right = torch.randn(5, 3), torch.randn(5, 2, 3)
    graph = capture(Two().eval(), (left[:2], right[:2])).graph
    assert [value.name for value in graph.inputs] == ["left", "right"]
    assert [value.name for value in graph.outputs] == ["sum", "least"]
    name_taps(graph)
    assert [value.name for value in graph.outputs] == ["sum", "net.least"]
    total, less = run(Two(), left, right)
    np.testing.assert_allclose(total, (left + right.sum(1)).numpy(), atol=1e-6)
    np.testing.assert_allclose(less, (left - 1).numpy(), atol=1e-6)
