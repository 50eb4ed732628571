"""Gathers how far the workers are, in an actor of its own that the job asks. Imports Ray in functions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from dsvl_cli.batch.cluster.actor import Share

_MOST_MESSAGES = 50


@dataclass(slots=True)
class Sum:
    """How far all workers are.

    Attributes:
        answered, suspect, failed: the numbers of rows.
        in_a_row: how many failed since one was answered.
        messages: what is wrong with some, since the last time this was asked for.
    """

    answered: int = 0
    suspect: int = 0
    failed: int = 0
    in_a_row: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The number of all rows."""
        return self.answered + self.suspect + self.failed


class Gathering:
    """Adds up what the workers report. A block that is worked on again replaces what was reported of it before."""

    def __init__(self) -> None:
        self._sum = Sum()
        self._open: dict[str, Share] = {}
        self._messages: deque[str] = deque(maxlen=_MOST_MESSAGES)

    def tell(self, name: str, share: Share) -> None:
        """Note how much of a block is done."""
        before = self._open.pop(name, Share())
        self._messages.extend(share.messages[len(before.messages) :])
        if not share.is_complete:
            self._open[name] = share
            return
        total = self._sum
        total.answered += share.answered
        total.suspect += share.suspect
        total.failed += share.failed
        total.in_a_row = 0 if share.answered or share.suspect else total.in_a_row + share.failed

    def ask(self) -> Sum:
        """Return the sum, with the messages since the last time."""
        shares = list(self._open.values())
        messages, done = list(self._messages), self._sum
        self._messages.clear()
        return Sum(
            done.answered + sum(share.answered for share in shares),
            done.suspect + sum(share.suspect for share in shares),
            done.failed + sum(share.failed for share in shares),
            done.in_a_row,
            messages,
        )


class Teller:
    """Reports to the actor of `Gathering`; can be sent to other machines."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, name: str, share: Share) -> None:
        """Report a share; nothing waits for it to arrive."""
        self._actor.tell.remote(name, share)


def start_gathering(ray: Any) -> Any:
    """Start the actor, on the machine of the job."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Gathering)
    return actor.options(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here).remote()
