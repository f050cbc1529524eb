from __future__ import annotations

import pytest

from vitc.dialect import OPS
from vitc.dialect.signature import TensorType, call_type, check_attributes
from vitc.dialect.vectors import make_vectors
from vitc.errors import VitcError

VECTORS = make_vectors()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_signature_tells_the_type_that_the_reference_computes(vector) -> None:
    check_attributes(vector.operator, vector.attributes)
    given = [TensorType(str(array.dtype), array.shape) for array in vector.inputs]
    made = call_type(vector.operator, vector.attributes, given)
    assert (made.dtype, made.shape) == (str(vector.output.dtype), vector.output.shape)


BATCHED = [
    vector
    for vector in VECTORS
    if len(vector.inputs[0].shape) > 2
    and vector.operator != "MaxSimHamming"
    and all(len(array.shape) < 3 for array in vector.inputs[1:2] if vector.operator == "Binarize")
]


@pytest.mark.parametrize("vector", BATCHED, ids=lambda vector: vector.name)
def test_an_open_batch_stays_open(vector) -> None:
    given = [TensorType(str(array.dtype), array.shape) for array in vector.inputs]
    batched = ("x", "bits", "packed", "p", "scores", "query", "key", "mask", "value", "residual")
    opened = [
        TensorType(kind.dtype, ("batch", *kind.shape[1:])) if name in batched else kind
        for name, kind in zip(OPS[vector.operator].inputs, given, strict=True)
    ]
    made = call_type(vector.operator, vector.attributes, opened)
    assert made.shape == ("batch", *vector.output.shape[1:])


@pytest.mark.parametrize("lead", [(), (3,), ("texts", 2)])
def test_an_open_number_of_documents_stays_open_and_comes_first(lead) -> None:
    query, documents = (TensorType("uint8", shape) for shape in ((*lead, 5, 3), ("n", 4, 3)))
    made = call_type("MaxSimHamming", {"k": 20}, [query, documents])
    assert (made.dtype, made.shape) == ("int32", ("n", *lead))
    assert call_type("MaxSimHamming", {"k": 20}, [query, TensorType()]).shape == (None, *lead)
    for wrong in ((3,), ("n", 4, 2), (4, 3), ("n", 1, 4, 3)):
        with pytest.raises(VitcError):
            call_type("MaxSimHamming", {"k": 20}, [query, TensorType("uint8", wrong)])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_what_is_not_known_is_no_fault(vector) -> None:
    made = call_type(vector.operator, vector.attributes, [TensorType()] * len(vector.inputs))
    assert (made.dtype, made.shape) == (str(vector.output.dtype), None)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_another_type_of_any_input_is_refused(vector) -> None:
    given = [TensorType(str(array.dtype), array.shape) for array in vector.inputs]
    for index, name in enumerate(OPS[vector.operator].inputs):
        other = [*given]
        other[index] = TensorType("float64", given[index].shape)
        with pytest.raises(VitcError, match=f"its {name} is float64"):
            call_type(vector.operator, vector.attributes, other)


@pytest.mark.parametrize("operator", OPS)
def test_every_attribute_has_a_range_and_is_required(operator) -> None:
    attributes = {name: 1 if kind == "int" else 0.5 for name, kind in OPS[operator].attributes}
    check_attributes(operator, attributes)
    for name in attributes:
        with pytest.raises(VitcError, match=f"no {name}"):
            check_attributes(operator, {k: v for k, v in attributes.items() if k != name})
        for wrong in (-1, 1 << 40) if isinstance(attributes[name], int) else (-0.5, 1e39):
            with pytest.raises(VitcError, match=f"its {name} is .* not within"):
                check_attributes(operator, {**attributes, name: wrong})
        with pytest.raises(VitcError, match=f"its {name} is no"):
            check_attributes(operator, {**attributes, name: None})
    with pytest.raises(VitcError, match="does not know"):
        check_attributes(operator, {**attributes, "axis": 1})


BIASED = next(vector for vector in VECTORS if vector.name == "biasedbestmask_2x3x2x5x9_excluded")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("scores", (3, 2, 5), "its scores has 3 axes, not 4 or more"),
        ("bias", (2, 5, 8), "8 should be 9"),
        ("bias", (3, 5, 9), "3 should be 2"),
        ("bias", (1, 2, 5, 9), "4 axes, not 3"),
        ("excluded", (3, 2, 5, 9), "2 should be 1"),
        ("excluded", (2, 1, 5, 9), "2 should be 1 or 3"),
        ("excluded", (3, 1, 5, 8), "8 should be 1 or 9"),
        ("excluded", (5, 9), "2 axes, not 4"),
    ],
)
def test_a_bias_and_what_is_excluded_have_the_sizes_of_the_scores(name, shape, message) -> None:
    given = [TensorType(str(array.dtype), array.shape) for array in BIASED.inputs]
    place = OPS["BiasedBestMask"].inputs.index(name)
    given[place] = TensorType(given[place].dtype, shape)
    with pytest.raises(VitcError, match=message):
        call_type("BiasedBestMask", BIASED.attributes, given)
