"""What a report shows of a confusion matrix."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, recall_score

from vitc.cli.report_classes import shown_classes
from vitc.verify.confusion import ConfusionMatrix

NUMBERS = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=40)


@given(NUMBERS)
def test_the_matrices_are_those_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    labels, own, theirs = np.array(rows, np.int64).T
    made = ConfusionMatrix.of(labels, own, theirs, ["a", "b"]).to_dict()
    for side, given_to in (("reference", own), ("candidate", theirs)):
        dense = np.zeros((6, 6), int)
        for label, chosen, count in made[side]:
            dense[label, chosen] = count
        np.testing.assert_array_equal(dense, confusion_matrix(labels, given_to, labels=range(6)))
    assert made["labels"][:2] == ["a", "b"]
    assert len(made["labels"]) == max(2, 1 + max(map(max, rows)))

    shown = shown_classes(made)
    recalls = recall_score(labels, theirs, labels=range(6), average=None, zero_division=0)
    for row in shown.rows:
        assert row.candidate == recalls[row.number]
        assert row.images == int((labels == row.number).sum())
    assert sum(row.images for row in shown.rows) == len(rows)
    assert sum(count for *_, count in shown.mistakes) == int((labels != theirs).sum())


def test_many_classes_have_no_table_but_what_is_mistaken_most() -> None:
    labels = np.repeat(np.arange(200), 3)
    given_to = np.where(labels == 7, 8, labels)
    given_to[0] = 9
    shown = shown_classes(ConfusionMatrix.of(labels, labels, given_to).to_dict())
    assert shown.columns == []
    assert shown.mistakes == [("7", "8", 3), ("0", "9", 1)]
    assert [row.candidate for row in shown.rows][6:9] == [1, 0, 1]


def test_cells_of_thousands_have_percent() -> None:
    labels = np.repeat([0, 1], [1500, 10])
    given_to = np.where(np.arange(1510) < 150, 1, labels)
    shown = shown_classes(ConfusionMatrix.of(labels, labels, given_to).to_dict())
    assert shown.percent
    assert {pair: text for pair, (text, _) in shown.cells.items()} == {
        (0, 0): "90", (0, 1): "10", (1, 1): "100",
    }  # fmt: skip
