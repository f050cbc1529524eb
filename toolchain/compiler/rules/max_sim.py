"""Late interaction of packed vectors that a run is given: a step over the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitc.compiler.form import Form
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Cost, Operand, Port
from vitc.compiler.rules.linear import MAX_LENGTH
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.kernels.max_sim import (
    MOST_LANES,
    MaxSimShape,
    lay_lanes_kernel,
    pairs_kernel,
    tile_isa,
    tile_kernel,
    uses_tile,
)
from vitc.targets.kernels.max_sim_across import across_kernel, fits_across
from vitc.targets.kernels.max_sim_single import fits_single, single_kernel
from vitc.targets.layouts import Lanes

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["MaxSim"]


class MaxSim(Rule):
    """Inputs are the queries and the documents: ports of the whole run, the latter of its extent.

    The scores are written to their port, so the form says how the queries lie in lanes, where they
    do.
    """

    def form(self, op: Op, isa: Isa) -> Form:
        """The lanes of the queries."""
        shape = _shape(op)
        isa = tile_isa(isa, shape)
        layout = Lanes(shape.lanes, shape.width, isa.lanes, isa.element_bits)
        return Form(Order.whole((shape.lanes, shape.width)), layout)

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Nothing: both ports are as they come."""
        del op, form, isa
        return []

    def build(self, op: Op, form: Form, emission: Emission) -> Port:
        """One step over the documents, and one before it where the queries go into lanes."""
        shape, isa = _shape(op), emission.isa
        if shape.width > MAX_LENGTH:
            raise refused(op, f"vectors of {shape.width} bits; kernels count up to {MAX_LENGTH}")
        if shape.lanes > MOST_LANES:
            raise refused(op, f"{shape.lanes} vectors of queries; kernels hold {MOST_LANES}")
        queries, documents = (emission.port(op.use(i).value) for i in range(2))
        operand: Operand = queries
        full = not shape.lanes % isa.lanes
        if fits_across(isa, shape) and not full:
            stem, build = "max_sim_across", across_kernel
        elif uses_tile(tile_isa(isa, shape), shape):
            lay = emission.kernel(
                "lay_lanes", (shape,),
                lambda symbol, isa: lay_lanes_kernel(symbol, tile_isa(isa, shape), shape),
                tuned=False,
            )  # fmt: skip
            operand = emission.beside(lay, [queries], form.layout, f"{queries.name}.lanes")
            stem, build = "max_sim", _tile
        elif fits_single(isa, shape):
            stem, build = "max_sim_single", single_kernel
        else:
            stem, build = "max_sim_pairs", pairs_kernel
        kernel = emission.kernel(stem, (shape,), lambda symbol, isa: build(symbol, isa, shape))
        products = shape.lanes * shape.documents * shape.width
        cost = Cost(binary=products, unit="popcount")
        return emission.step_over(op, documents, kernel, [operand, documents], cost)


def _tile(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    return tile_kernel(symbol, tile_isa(isa, shape), shape)


def _shape(op: Op) -> MaxSimShape:
    queries, documents = (op.use(i) for i in range(2))
    for name, use in (("queries", queries), ("documents", documents)):
        if use.value.port is None or use.elements is not None:
            raise refused(op, f"its {name} are no input of the whole run, as they come")
    *texts, count, _ = queries.value.shape
    return MaxSimShape(texts[0] if texts else 1, count, documents.value.shape[0], op.number("k"))
