"""Which of several implementations of a product to use, decided by trying them on this machine.

CPU flags do not decide: they say nothing about how well a library uses an instruction, or whether at all. Each
candidate computes a few small products, is compared with a reference, and is timed against the others. One that raises,
disagrees or is far slower is dropped, and the reason is kept. The results are stored (choice_table.py), so only the
first start measures, for half a second at most.

Python cannot interrupt a call into C: a candidate that never returns would hang, and one that crashes would end the
process. Therefore the first product is tiny (a reference loop that takes a minute for a prompt takes milliseconds for
it), and each larger one is started only if its time, extrapolated from the one before, fits into what is left.

Products run on all threads, as in a model. But while other processes compete for the CPU, every split of work among
threads may wait milliseconds for the scheduler, and only the number of splits would be measured. A product that takes
microseconds on any idle machine reveals this; then the candidates are compared on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.questions import REFERENCE, Candidate, Measured, Question

SECONDS = 0.5  # the budget of a start, over all its questions

# Timed runs of each candidate at the final size, of which the fastest counts: more if they are short.
_FEWEST_ROUNDS, _ROUNDS, _MOST_ROUNDS = 2, 5, 25
_SHORT = 0.02  # the share of the budget that the further rounds of a question may take
_CLEAR_GAIN = 0.1  # what another candidate must save to replace the default one: noise must not flip the choice
_SLOW = 10.0  # times the fastest: above any noise
_NOTABLE_SECONDS = 1e-3  # faster runs at less than the final size may be mostly overhead, and say nothing
_GAUGE_RUNS = 3  # each must take less than `_NOTABLE_SECONDS` on an idle machine
_RETRIES = 3  # before a run counts as slow
_LEAST_LEFT = 0.05  # the share of the budget below which no question is begun
_WHOLE = 0.9  # the share from which a question has the budget to itself


def _multiply_little() -> None:
    functional.linear(torch.ones(32, 64), torch.ones(64, 64))


class Budget:
    """The time that measuring may take.

    Args:
        seconds: in all.
        clock: in seconds.
        gauge: takes microseconds on an idle machine, and uses all threads.
    """

    def __init__(
        self,
        seconds: float = SECONDS,
        clock: Callable[[], float] = perf_counter,
        gauge: Callable[[], object] = _multiply_little,
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self._gauge = gauge
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._end - self.clock()

    def is_calm(self) -> bool:
        """Whether the threads of this process have the CPU for themselves."""
        self._gauge()  # one-time setup
        for _ in range(_GAUGE_RUNS):
            start = self.clock()
            self._gauge()
            if self.clock() - start > _NOTABLE_SECONDS:
                return False
        return True


class _Obstacle(Exception):
    """Measuring cannot go on."""


class _OutOfTime(_Obstacle):
    """The budget does not allow the next run."""

    def __init__(self) -> None:
        super().__init__("no time was left at this start")


class _Busy(_Obstacle):
    """Other processes delay the threads."""


def choose(question: Question, budget: Budget, dropped: Mapping[str, str] | None = None) -> Measured:
    """Measure the candidates of a question, and choose one. Never raises.

    If time runs out, the default candidate is chosen and the answer is incomplete. A question that had the whole budget
    is not put off again: what was measured until then decides, and candidates that were not reached are dropped.

    Args:
        question: the question.
        budget: the time for this and other questions.
        dropped: candidates that an earlier, incomplete attempt has dropped, and why.
    """
    whole = budget.left >= _WHOLE * budget.seconds
    threads = torch.get_num_threads()
    for one_thread in (False, True) if threads > 1 else (False,):
        trial = _Trial(question, budget, dict(dropped or {}), watch=threads > 1 and not one_thread)
        obstacle = ""
        try:
            if one_thread:
                torch.set_num_threads(1)
            if budget.left < _LEAST_LEFT * budget.seconds:
                raise _OutOfTime
            with torch.no_grad():
                trial.run()
        except _Busy:
            continue
        except _Obstacle as exc:
            if whole and trial.seconds and isinstance(exc, _OutOfTime):
                trial.drop_unmeasured()
            else:
                obstacle = str(exc)
        finally:
            if one_thread:
                torch.set_num_threads(threads)
        break
    names = [candidate.name for candidate in trial.usable]
    if obstacle or not names:
        chosen = names[0] if names else REFERENCE
        return Measured(question.name, chosen, not obstacle, dropped=trial.dropped, obstacle=obstacle)
    fastest = min(trial.seconds, key=trial.seconds.__getitem__)
    gain = trial.seconds[fastest] < (1 - _CLEAR_GAIN) * trial.seconds[names[0]]
    chosen = fastest if gain else names[0]
    return Measured(question.name, chosen, True, trial.size, trial.seconds, trial.dropped, one_thread)


class _Trial:
    """The course of measuring one question.

    Args:
        question: the question.
        budget: its time.
        dropped: candidates not to try, and why.
        watch: stop if other processes keep the CPU busy.

    Attributes:
        usable: the candidates not dropped, in order.
        size: the last one tried.
        seconds: the fastest run of each usable candidate at this size.
        dropped: the other candidates, and why.
    """

    def __init__(self, question: Question, budget: Budget, dropped: dict[str, str], *, watch: bool) -> None:
        self.usable = [candidate for candidate in question.candidates if candidate.name not in dropped]
        self.size = 0
        self.seconds: dict[str, float] = {}
        self.dropped = dropped
        self._question = question
        self._budget = budget
        self._watch = watch
        self._runs: dict[str, Callable[[], torch.Tensor]] = {}
        self._wanted = torch.empty(0)

    def run(self) -> None:
        """Try the sizes in ascending order, then time all candidates in turns.

        Raises:
            _Obstacle: the budget does not suffice, or the machine is busy.
        """
        self._check_calm()
        for size in self._question.sizes:
            if not self.usable:
                return
            if self.size:
                expected = sum(self.seconds.values()) * (size / self.size) ** 2
                if expected * _ROUNDS > self._budget.seconds / 2:
                    break  # a slow machine: no start can afford more than the size before
                self._check_time(2 * expected)
            try:
                self._wanted = self._question.reference(size)
            except Exception as exc:  # torch is broken, or memory is short: there is nothing to compare with
                if not self.size:
                    raise _Obstacle(f"the reference {_describe(exc)}") from exc
                break
            before, self.size = (self.size, self.seconds), size
            try:
                self._try_size()
            except _Obstacle:
                if before[0]:  # the results of the size before are better than half of the new ones
                    self.size = before[0]
                    names = {candidate.name for candidate in self.usable}
                    self.seconds = {name: seconds for name, seconds in before[1].items() if name in names}
                raise
        self._time_in_turns()
        self._drop_slow(0.0)
        self._check_calm()

    def drop_unmeasured(self) -> None:
        """Drop the candidates that were not reached."""
        for candidate in [*self.usable]:
            if candidate.name not in self.seconds:
                self._drop(candidate, "was not tried: the others took too long")

    def _try_size(self) -> None:
        self.seconds, self._runs = {}, {}
        for candidate in [*self.usable]:
            self._check_time(0.0)
            start = self._budget.clock()
            try:
                self._runs[candidate.name] = candidate.prepare(self.size)
            except Exception as exc:  # whatever a library raises for what it does not support
                self._drop(candidate, _describe(exc))
                continue
            self._run(candidate)  # one-time setup, such as code generation, is not timed
            if candidate not in self.usable:
                continue
            # A second run may take as long as the first one. A single long one may be due to other processes.
            used = self._budget.clock() - start
            if used > self._budget.left:
                del self.seconds[candidate.name]
                if used < self._budget.seconds / 2:
                    raise _OutOfTime
                self._drop(candidate, f"is slow: {used:.2g} s for the first product, {self._weight}")
                continue
            self._run(candidate)
        self._drop_slow(_NOTABLE_SECONDS)

    def _time_in_turns(self) -> None:
        start = self._budget.clock()
        for number in range(_MOST_ROUNDS):
            if len(self.usable) < 2:  # nothing to compare
                return
            if number >= _ROUNDS and self._budget.clock() - start > _SHORT * self._budget.seconds:
                return
            if sum(self.seconds.values()) > self._budget.left:
                if number < _FEWEST_ROUNDS:
                    raise _OutOfTime
                return
            for candidate in [*self.usable]:
                self._run_again(candidate)

    def _run_again(self, candidate: Candidate) -> None:
        best = self.seconds[candidate.name]
        self._run(candidate)
        if candidate in self.usable:
            self.seconds[candidate.name] = min(best, self.seconds[candidate.name])

    def _run(self, candidate: Candidate) -> None:
        """Run and check a candidate: notes its time, or drops it."""
        start = self._budget.clock()
        try:
            found = self._runs[candidate.name]()
            seconds = self._budget.clock() - start
            fault = find_difference(self._wanted, found, candidate.tolerance)
        except Exception as exc:
            fault = _describe(exc)
        if fault is None:
            self.seconds[candidate.name] = max(seconds, 1e-9)  # a coarse clock may stand still
        else:
            self._drop(candidate, fault)

    def _drop_slow(self, least: float) -> None:
        """Drop candidates that are far slower than the fastest one and take more than `least` seconds."""
        for candidate in [*self.usable]:
            for _ in range(_RETRIES):
                if self._is_slow(candidate, least):
                    self._check_time(self.seconds[candidate.name])
                    self._run_again(candidate)
            if self._is_slow(candidate, least):
                self._check_calm()
                fastest = min(self.seconds, key=self.seconds.__getitem__)
                ratio = self.seconds[candidate.name] / self.seconds[fastest]
                self._drop(candidate, f"is slow: {ratio:.0f} times {fastest}, {self._weight}")

    def _is_slow(self, candidate: Candidate, least: float) -> bool:
        if candidate not in self.usable:
            return False
        seconds = self.seconds[candidate.name]
        return seconds > max(least, _SLOW * min(self.seconds.values()))

    def _drop(self, candidate: Candidate, why: str) -> None:
        self.usable.remove(candidate)
        self.seconds.pop(candidate.name, None)
        self._runs.pop(candidate.name, None)
        self.dropped[candidate.name] = why

    @property
    def _weight(self) -> str:
        return f"{self.size} x {self.size} weights"

    def _check_calm(self) -> None:
        if self._watch and not self._budget.is_calm():
            raise _Busy

    def _check_time(self, needed: float) -> None:
        if self._budget.left <= needed:
            raise _OutOfTime


def find_difference(wanted: torch.Tensor, found: object, tolerance: float) -> str | None:
    """Compare a result with the reference; returns what is wrong, or None.

    Args:
        wanted: the reference.
        found: what a candidate returned.
        tolerance: the largest accepted error, relative to the largest magnitude of the reference.
    """
    if not isinstance(found, torch.Tensor):
        return f"returns {type(found).__name__}, not a tensor"
    if found.shape != wanted.shape:
        return f"returns the shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    if found.dtype != wanted.dtype:
        return f"returns {found.dtype} instead of {wanted.dtype}"
    if not bool(found.isfinite().all()):
        return "returns NaN or infinity"
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp_(min=1e-30))
    return None if error <= tolerance else f"is wrong: off by {error:.2g}, {tolerance:.2g} allowed"


def _describe(exc: Exception) -> str:
    lines = str(exc).splitlines() or [""]
    return f"raises {type(exc).__name__}: {lines[0][:200]}"
