"""Each operator: its body in ONNX Runtime = the numpy reference = the PyTorch op, bit for bit."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from hypothesis import given
from hypothesis import strategies as st

import vitc.models.ops  # noqa: F401 - registers the operators
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.dialect import OPS
from vitc.dialect.packing import pack_bits, unpack_bits
from vitc.dialect.vectors import TestVector as Vector
from vitc.models.retrieval.scores import sign_interaction
from vitc.retrieval.scan import interactions

OWN = torch.ops.vitc
sizes = st.integers(1, 70)
few = st.integers(1, 6)
leads = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def run(operator: str, inputs: tuple, attributes: dict) -> np.ndarray:
    """Compute an operator by its body, and compare with the reference."""
    vector = Vector("case", operator, inputs, attributes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        vector.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, dict(zip(OPS[operator].inputs, inputs, strict=True)))[0]
    assert found.dtype == vector.output.dtype
    assert found.shape == vector.output.shape
    # Equal, and zeros of either sign are: nothing here keeps the sign of a zero.
    np.testing.assert_array_equal(found, vector.output)
    return found


def bits(rng, *shape):
    return rng.integers(0, 2, shape, dtype=np.uint8)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


@shared.examples(15)
@given(numbers.rngs(), leads, sizes)
def test_packing_is_undone_and_pads_with_zeros(rng, lead, k):
    plain = bits(rng, *lead, k)
    packed = run("PackBits", (plain,), {"k": k})
    assert np.array_equal(run("UnpackBits", (packed,), {"k": k}), plain)
    assert np.array_equal(unpack_bits(packed, k), plain)
    assert not np.unpackbits(packed, axis=-1, bitorder="little")[..., k:].any()


@shared.examples(30)
@given(numbers.rngs(), few, few, sizes)
def test_binarize(rng, batch, tokens, width):
    x = numbers.arrays_of(rng, (batch, tokens, width))
    limit = numbers.arrays_of(rng, (tokens, 1), np.inf)
    limit = np.where(rng.random(limit.shape) < 0.5, x[0, :, :1], limit).astype(np.float32)
    run("Binarize", (x, limit, bits(rng, tokens, 1).astype(bool)), {})
    zero, keep = np.zeros(1, np.float32), np.zeros(1, bool)
    found = run("Binarize", (x, zero, keep), {})
    assert np.array_equal(OWN.binarize(tensor(x)).numpy(), found)


@shared.examples(30)
@given(numbers.rngs(), leads, few, sizes, few)
def test_binary_linear(rng, lead, tokens, k, outputs):
    x, weight = bits(rng, *lead, tokens, k), bits(rng, outputs, k)
    found = run("BinaryLinear", (pack_bits(x), pack_bits(weight)), {"k": k})
    assert np.array_equal(OWN.binary_linear(tensor(x), tensor(weight)).numpy(), found)


@shared.examples(30)
@given(numbers.rngs(), st.integers(0, 6), few, few, few, sizes)
def test_late_interaction_of_packed_vectors(rng, documents, b, texts, a, k):
    images, words = bits(rng, documents, b, k), bits(rng, texts, a, k)
    images[:1, -1] = words[0, 0]
    found = run("MaxSimHamming", (pack_bits(words), pack_bits(images)), {"k": k})
    assert np.array_equal(sign_interaction(tensor(images), tensor(words)).numpy(), found)
    for i in range(texts):
        one = run("MaxSimHamming", (pack_bits(words[i]), pack_bits(images)), {"k": k})
        assert np.array_equal(one, found[:, i])
        assert np.array_equal(one, interactions(pack_bits(words[i]), pack_bits(images), k))


@shared.examples(40)
@given(numbers.rngs(), few, few, sizes, few, few, st.booleans())
def test_binary_linear_threshold(rng, batch, tokens, k, groups, width, shared_rows):
    outputs = groups * width
    x, weight = bits(rng, batch, tokens, k), bits(rng, outputs, k)
    scale, offset = (numbers.arrays_of(rng, (outputs,)) for _ in range(2))
    rows = 1 if shared_rows else tokens
    upper = numbers.arrays_of(rng, (rows, groups), np.inf)
    lower = numbers.arrays_of(rng, (rows, 1), -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        run(
            "BinaryLinearThreshold",
            (pack_bits(x), pack_bits(weight), scale, offset, upper, lower),
            {"k": k},
        )


@shared.examples(30)
@given(numbers.rngs(), few, few, sizes, few, st.booleans())
def test_binary_linear_residual(rng, batch, tokens, k, outputs, transposed):
    x, weight = bits(rng, batch, tokens, k), bits(rng, outputs, k)
    scale, bias = (numbers.arrays_of(rng, (outputs,)) for _ in range(2))
    gain = numbers.arrays_of(rng, (tokens, 1))
    shape = (batch, outputs, tokens) if transposed else (batch, tokens, outputs)
    inputs = (pack_bits(x), pack_bits(weight), scale, bias, gain, numbers.arrays_of(rng, shape))
    with np.errstate(over="ignore", invalid="ignore"):
        run("BinaryLinearResidual", inputs, {"k": k, "transposed": int(transposed)})


@shared.examples(30)
@given(numbers.rngs(), leads, few, sizes, st.integers(0, 8), st.integers(-9, 9))
def test_attention(rng, lead, tokens, width, slack, limit):
    q, k, v = (bits(rng, *lead, tokens, width) for _ in range(3))
    scores = run("BinaryScores", (pack_bits(q), pack_bits(k)), {"k": width})
    assert np.array_equal(OWN.binary_scores(tensor(q), tensor(k)).numpy(), scores)
    mask = run("RowBestMask", (scores,), {"slack": slack})
    assert (mask.max(axis=-1) == 1).all()
    by_token = pack_bits(np.swapaxes(v, -1, -2))
    found = run("MaskSignMatMul", (pack_bits(mask), by_token), {"k": tokens})
    assert np.array_equal(OWN.mask_sign_matmul(tensor(mask), tensor(v)).numpy(), found)
    run("IntegerThreshold", (found, np.array([limit], np.int32)), {})


@shared.examples(30)
@given(numbers.rngs(), leads, few, few, st.integers(1, 40), st.floats(0.01, 2), st.floats(1e-5, 3))
def test_elastic_mask(rng, lead, n, m, width, temperature, alpha):
    scores = (width - 2 * rng.integers(0, width + 1, (*lead, n, m))).astype(np.int32)
    weights = 2.0**44 * np.exp(-2 * temperature * np.arange(width + 1))
    least = np.minimum(np.ceil(weights * 2 / alpha), 2.0**62).astype(np.int64)
    tables = (np.rint(weights).astype(np.int64), least)
    found = run("ElasticMask", (scores, *tables), {})
    assert np.array_equal(OWN.elastic_mask(*map(tensor, (scores, *tables))).numpy(), found)


@shared.examples(30)
@given(numbers.rngs(), leads, few, few)
def test_sum_threshold(rng, lead, n, m):
    x = rng.integers(-9, 10, (*lead, n, m)).astype(np.int32)
    first, second = numbers.arrays_of(rng, (n, 1)), numbers.arrays_of(rng, (m,))
    whole = rng.random(second.shape) < 0.5
    second = np.where(whole, rng.integers(-9, 10, second.shape), second).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        found = run("SumThreshold", (x, first, second), {})
        assert np.array_equal(OWN.sum_threshold(*map(tensor, (x, first, second))).numpy(), found)


@shared.examples(20)
@given(numbers.rngs(), leads, few, st.sampled_from([0.25, 0.5, 0.125]))
def test_softmax_mask(rng, lead, tokens, ratio):
    # Powers of two, so that p = ratio * max is met exactly.
    p = (2.0 ** -rng.integers(0, 5, (*lead, tokens, tokens))).astype(np.float32)
    found = run("SoftmaxMask", (p,), {"ratio": ratio})
    assert np.array_equal(OWN.softmax_mask(tensor(p), ratio).numpy(), found)


@shared.examples(30)
@given(numbers.rngs(), leads, few, few, few, few, st.floats(2.0**-10, 2.0**10, width=32))
def test_biased_best_mask(rng, lead, windows, heads, n, m, cut):
    scores = rng.integers(-20, 21, (*lead, windows, heads, n, m)).astype(np.int32)
    bias = numbers.arrays_of(rng, (heads, n, m))
    ties = rng.random(bias.shape) < 0.4
    bias = np.where(ties, rng.integers(-9, 10, bias.shape) - np.float32(cut), bias)
    bias[rng.random(bias.shape) < 0.2] = -np.inf
    bias[..., rng.integers(m)] = 3
    excluded = rng.random((rng.choice([1, windows]), 1, n, m)) < 0.3
    excluded &= ~np.isin(np.arange(m), np.flatnonzero((bias == 3).all((0, 1))))
    mask = run("BiasedBestMask", (scores, bias.astype(np.float32), excluded), {"cut": float(cut)})
    assert (mask.max(axis=-1) == 1).all()
    assert not (mask.astype(bool) & excluded).any()
