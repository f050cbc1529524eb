"""Work beside other work."""

from __future__ import annotations

import threading
import time

import pytest

from vitc.errors import VitcError
from vitc.verify.beside import beside

LONG_S = 60


def test_both_are_done_at_once():
    ours, theirs = threading.Event(), threading.Event()

    def work(step):
        step("begin")
        ours.set()
        assert theirs.wait(LONG_S)
        return 7

    with beside(work) as result:
        assert ours.wait(LONG_S)
        theirs.set()
        assert result() == 7


def test_what_the_work_raises_is_raised_where_its_result_is_wanted():
    def work(step):
        raise VitcError("There is no kernel.")

    with beside(work) as result, pytest.raises(VitcError, match="no kernel"):
        result()


def test_work_that_nobody_waits_for_ends_at_its_next_step():
    begun, outlived = threading.Event(), threading.Event()

    def work(step):
        begun.set()
        latest = time.monotonic() + LONG_S
        while time.monotonic() < latest:
            step("again")
        outlived.set()

    def block():
        with beside(work):
            assert begun.wait(LONG_S)
            raise VitcError("The file is damaged.")

    with pytest.raises(VitcError, match="damaged"):
        block()
    assert not outlived.is_set()
