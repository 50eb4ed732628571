from __future__ import annotations

import os
import signal
import threading

import pytest

from dsvl_cli.terminal.chat.interrupts import Interrupts


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_goes_through_where_it_is_listened_to() -> None:
    steps = []

    def work() -> None:
        with Interrupts() as ctrl_c, ctrl_c.listening():
            steps.append("begun")
            press()
            steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["begun"]


def test_elsewhere_it_waits_for_the_next_time_and_is_then_over() -> None:
    with Interrupts() as ctrl_c:
        press()
        with pytest.raises(KeyboardInterrupt), ctrl_c.listening():
            pytest.fail("it should not have begun")
        with ctrl_c.listening():
            pass


def test_what_is_forgotten_does_not_come() -> None:
    with Interrupts() as ctrl_c:
        press()
        ctrl_c.forget()
        with ctrl_c.listening():
            pass


def test_after_listening_it_waits_again() -> None:
    with Interrupts() as ctrl_c:
        with ctrl_c.listening():
            pass
        press()
        ctrl_c.forget()


def test_the_handler_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_it_does_nothing() -> None:
    results = []

    def work() -> None:
        with Interrupts() as ctrl_c, ctrl_c.listening():
            results.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [before]
