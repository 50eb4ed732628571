"""How many threads a decode step gets on a CPU that other processes use too.

The threads of a step wait for each other some hundred times. If one of them must wait for the scheduler each time, a
step takes ten times as long, and fewer threads are faster. The results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time

_CALM = 0.75  # the share of its threads' time that a process gets at least if it has the CPU for itself
_STEPS = 16  # until all threads are tried again


class TeamSize:
    """Decides between all threads and half of them, from the times of earlier steps.

    Args:
        clock: seconds.
        cpu_clock: seconds of CPU time of this process; waiting threads count while they spin.
    """

    def __init__(
        self, clock: Callable[[], float] = perf_counter, cpu_clock: Callable[[], float] = process_time
    ) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._all_seconds: float | None = None  # of the last step with all threads, if it had to share the CPU
        self._steps_left = 0  # with half of the threads

    def run(self, threads: int, step: Callable[[int], None]) -> None:
        """Run a step with a number of threads.

        Args:
            threads: that may be used.
            step: takes the number of threads.
        """
        half = max(1, threads // 2)
        is_half = threads > 1 and (self._all_seconds is not None or self._steps_left > 0)
        start, cpu_start = self._clock(), self._cpu_clock()
        step(half if is_half else threads)
        seconds, cpu_seconds = self._clock() - start, self._cpu_clock() - cpu_start
        if not is_half:
            self._all_seconds = seconds if cpu_seconds < _CALM * threads * seconds else None
        elif self._all_seconds is not None:  # the first one with half of them: is it better?
            self._steps_left = _STEPS if seconds < self._all_seconds else 0
            self._all_seconds = None
        else:
            self._steps_left -= 1
