"""Signals wait for the end of torch's import."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dsvl_cli.terminal.deferral import deferred_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


def test_a_signal_is_raised_after_the_block_whichever_thread_gets_it() -> None:
    done = []
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()

    def load() -> None:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("imported")
        done.append("too late")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        load()
    end.set()
    other.join()
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_import_that_fails_leaves_signals_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError), deferred_signals():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes() -> None:
    before, within = signal.getsignal(signal.SIGINT), []

    def load() -> None:
        with deferred_signals():
            within.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert within == [before]
