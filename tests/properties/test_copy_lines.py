"""The copy of a picture into padded lines = numpy, on this machine's targets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.copy_lines import LinesShape, copy_lines_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 19), st.integers(1, 5))
pads = st.tuples(*[st.integers(0, 4)] * 4)


@shared.examples(12)
@given(numbers.rngs(), targets, sizes, pads, st.permutations(range(3)), st.integers(0, 7))
def test_copy_lines(call, rng, target, picture, padded, lie, gap):
    # Axes lie in any order in memory, with a gap behind the innermost one.
    size, (top, left, bottom, right) = np.array(picture), padded
    stored = size[lie]
    stored[2] += gap
    x = rng.standard_normal(stored).astype(np.float32)
    shown = x[:, :, : stored[2] - gap].transpose(np.argsort(lie))
    steps = tuple(step // 4 for step in shown.strides)
    wanted = np.pad(shown, ((top, bottom), (left, right), (0, 0)))
    lines, length = len(wanted), wanted[0].size
    stride = round_up(length, 32)
    shape = LinesShape(tuple(picture), steps, (top, left), lines, stride)
    kernel = copy_lines_kernel("k", ISAS[target.isa], shape)

    out = call(target, kernel, [x], lines * stride * 4).view(np.float32).reshape(lines, stride)

    assert np.array_equal(out[:, :length], wanted.reshape(lines, length))
    assert not out[:, length:].any()
