"""Signals wait for the end of torch's import."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dsvl_cli.terminal.deferral import deferred_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


def test_a_signal_is_raised_after_the_block() -> None:
    done = []

    def load() -> None:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("imported")
        done.append("too late")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["imported"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_an_import_that_fails_leaves_signals_as_they_were() -> None:
    with pytest.raises(ImportError), deferred_signals():
        raise ImportError
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_in_another_thread_nothing_waits() -> None:
    masks = []

    def load() -> None:
        with deferred_signals():
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert masks == [set()]
