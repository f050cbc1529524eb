"""Graphs of strangers run in a process that is ended when it takes too much."""

from __future__ import annotations

import gc
import itertools
import threading
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vitc.errors import VitcError
from vitc.onnx_files import confined, confined_worker, load_onnx, run_with_taps, session, tap_names
from vitc.onnx_files.confined import ConfinedSession, opening

IMAGE = np.linspace(-2, 2, 96, dtype=np.float32).reshape(2, 3, 4, 4)


def graph(*nodes: onnx.NodeProto, **constants: list[int]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["b", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [helper.make_tensor(n, TensorProto.INT64, [len(v)], v) for n, v in constants.items()],
    )
    opset = helper.make_opsetid("", 21)
    model: bytes = helper.make_model(made, opset_imports=[opset], ir_version=10).SerializeToString()
    return model


DOUBLE = graph(helper.make_node("Add", ["input", "input"], ["logits"]))
GREATEST = helper.make_node("ReduceMax", ["input"], ["m"], keepdims=0)


def works() -> bool:
    return bool(np.array_equal(ConfinedSession(DOUBLE).run(None, {"input": IMAGE})[0], 2 * IMAGE))


def test_it_computes_what_a_session_here_computes(exported, images):
    model, _ = load_onnx(exported["packed"].path)
    names = [*tap_names(model), "logits"]
    own = run_with_taps(session(model, names), images.numpy())
    there = run_with_taps(session(model, names, confined=True), images.numpy())
    assert own.keys() == there.keys()
    for name, value in own.items():
        assert value.dtype == there[name].dtype
        # There nothing is fused, and floats are rounded otherwise.
        near = 1e-5 if value.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(value, there[name], rtol=near, atol=near)


def test_a_session_that_opens_beside_other_work_is_there_when_it_is_wanted():
    opened, refused = opening(DOUBLE), opening(b"no model")
    np.testing.assert_array_equal(opened.result().run(None, {"input": IMAGE})[0], 2 * IMAGE)
    with pytest.raises(VitcError, match="refuses the model"):
        refused.result()
    assert works()


def test_terabytes_are_refused_and_the_next_model_runs():
    node = helper.make_node("Expand", ["m", "shape"], ["logits"])
    opened = ConfinedSession(graph(GREATEST, node, shape=[1 << 20, 1 << 20]))
    with pytest.raises(VitcError, match=r"within 2\.5 GB"):
        opened.run(None, {"input": IMAGE})
    assert works()


def test_many_values_that_each_are_small_enough_are_refused(monkeypatch):
    monkeypatch.setattr(confined, "MEMORY", 200_000_000)
    monkeypatch.setattr(confined, "MEMORY_IMAGE", 0)
    names = ["e", *(f"x{i}" for i in range(8))]
    spread = helper.make_node("Expand", ["m", "shape"], ["e"])
    nodes = [helper.make_node("Exp", [a], [b]) for a, b in itertools.pairwise(names)]
    last = helper.make_node("Sum", names, ["logits"])  # all are alive until here
    opened = ConfinedSession(graph(GREATEST, spread, *nodes, last, shape=[4000, 4000]))
    with pytest.raises(VitcError, match=r"within 0\.2 GB"):
        opened.run(None, {"input": IMAGE})
    assert works()


def test_years_of_work_are_ended_and_the_next_model_runs(monkeypatch):
    names = ["e", *(f"x{i}" for i in range(300)), "logits"]
    nodes = [helper.make_node("MatMul", [a, a], [b]) for a, b in itertools.pairwise(names)]
    spread = helper.make_node("Expand", ["m", "shape"], ["e"])
    opened = ConfinedSession(graph(GREATEST, spread, *nodes, shape=[2000, 2000]))
    monkeypatch.setattr(confined, "SECONDS", 1)
    monkeypatch.setattr(confined, "SECONDS_IMAGE", 0)
    start = time.process_time()
    with pytest.raises(VitcError, match="more than 1 s of processor time"):
        opened.run(None, {"input": IMAGE})
    assert time.process_time() - start < 1
    # What that process held is gone, and says so; a new one takes over.
    with pytest.raises(VitcError, match="did not survive"):
        opened.run(None, {"input": IMAGE})
    monkeypatch.undo()
    assert works()


def test_years_of_work_on_constants_are_ended_too(monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 1)
    monkeypatch.setattr(confined, "SECONDS_IMAGE", 0)
    names = ["e", *(f"x{i}" for i in range(300)), "c"]
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    spread = helper.make_node("ConstantOfShape", ["shape"], ["e"], value=value)
    nodes = [helper.make_node("MatMul", [a, a], [b]) for a, b in itertools.pairwise(names)]
    last = helper.make_node("ReduceMax", ["c"], ["d"], keepdims=0)
    add = helper.make_node("Add", ["input", "d"], ["logits"])
    with pytest.raises(VitcError, match="did not survive"):
        # Whether it folds them when it opens the file, or computes them when it runs it.
        ConfinedSession(graph(spread, *nodes, last, add, shape=[2000, 2000])).run(
            None, {"input": IMAGE}
        )
    monkeypatch.undo()
    assert works()


def test_a_crash_of_the_runtime_is_an_error():
    opened = ConfinedSession(DOUBLE)
    opened._worker._process.kill()
    with pytest.raises(VitcError, match="did not survive"):
        opened.run(None, {"input": IMAGE})
    assert works()


def test_a_process_that_waits_for_ever_is_ended(monkeypatch):
    opened = ConfinedSession(DOUBLE)
    monkeypatch.setattr(confined, "_WAIT", 0.01)
    opened._worker._process.send_signal(19)  # SIGSTOP: it takes no processor time at all
    with pytest.raises(VitcError, match="did not survive"):
        opened.run(None, {"input": IMAGE})
    monkeypatch.undo()
    assert works()


def test_a_model_that_onnx_runtime_refuses_is_one_sentence():
    with pytest.raises(VitcError, match="ONNX Runtime refuses the model") as caught:
        ConfinedSession(b"no model")
    assert "\n" not in str(caught.value)
    with pytest.raises(VitcError, match="refuses"):
        ConfinedSession(DOUBLE).run(["nothing"], {"input": IMAGE})


def test_outputs_that_are_no_numbers_are_refused():
    node = helper.make_node("Cast", ["input"], ["logits"], to=TensorProto.STRING)
    proto = onnx.ModelProto.FromString(graph(node))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(VitcError, match="only arrays of numbers"):
        ConfinedSession(proto.SerializeToString()).run(None, {"input": IMAGE})


def test_threads_may_share_it():
    wrong = []

    def use(number: int) -> None:
        given = IMAGE + np.float32(number)
        opened = ConfinedSession(DOUBLE)
        found = [opened.run(None, {"input": given})[0] for _ in range(20)]
        wrong.extend(number for each in found if not np.array_equal(each, 2 * given))

    callers = [threading.Thread(target=use, args=(n,)) for n in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_what_is_not_used_any_more_is_closed():
    opened = ConfinedSession(DOUBLE)
    worker, number = opened._worker, opened._number
    del opened
    gc.collect()
    assert number in worker.closed
    assert works()
    assert number not in worker.closed


def test_arrays_of_any_shape_and_type_are_passed_on(tmp_path):
    sent = [np.array(3.5), np.zeros((0, 2), np.int8), np.ones((2, 1), bool), IMAGE[:, ::2]]
    with (tmp_path / "m").open("wb") as stream:
        confined_worker.send(stream, {"a": 1}, sent)
    with (tmp_path / "m").open("rb") as stream:
        header, got = confined_worker.receive(stream)
    assert header["a"] == 1
    for one, other in zip(sent, got, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
