"""The number of threads of a step, with clocks that tell how busy the CPU is."""

from __future__ import annotations

import pytest

from dsvl_cli.engine.network.team_size import TeamSize


class Machine:
    """Steps take `seconds[threads]`, of which the process gets a share."""

    def __init__(self, threads: int, seconds: dict[int, float]) -> None:
        self.threads, self.seconds = threads, seconds
        self.share = 1.0
        self.now = self.cpu = 0.0
        self.used: list[int] = []
        self.team = TeamSize(lambda: self.now, lambda: self.cpu)

    def step(self, threads: int) -> None:
        self.used.append(threads)
        self.now += self.seconds[threads]
        self.cpu += self.seconds[threads] * threads * self.share

    def run(self, count: int) -> list[int]:
        del self.used[:]
        for _ in range(count):
            self.team.run(self.threads, self.step)
        return list(self.used)


def test_an_idle_machine_uses_all_threads() -> None:
    assert Machine(2, {2: 0.1, 1: 0.2}).run(40) == [2] * 40


def test_a_busy_one_uses_half_and_tries_all_again_and_again() -> None:
    machine = Machine(2, {2: 1.2, 1: 0.2})
    machine.share = 0.4
    assert machine.run(36) == [2, *[1] * 17, 2, *[1] * 17]
    machine.share, machine.seconds = 1.0, {2: 0.1, 1: 0.2}
    assert machine.run(5) == [2] * 5


def test_half_of_them_must_be_faster() -> None:
    machine = Machine(8, {8: 0.3, 4: 0.35})
    machine.share = 0.5
    assert machine.run(4) == [8, 4, 8, 4]
    machine.seconds[4] = 0.2
    assert machine.run(4) == [8, 4, 4, 4]


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_one_thread_stays_one(share: float) -> None:
    machine = Machine(1, {1: 0.2})
    machine.share = share
    assert machine.run(5) == [1] * 5
