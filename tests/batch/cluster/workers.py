"""A worker's captioner without torch, which may end its process; sent to workers by its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from dsvl_cli.batch.captioner import Captioner
from dsvl_cli.batch.cluster.actor import Caption, Work
from dsvl_cli.batch.item import Item
from dsvl_cli.engine.conversation import Request
from dsvl_cli.engine.options import SamplingParams
from tests.batch.fakes import FakeBatchModel


def make_fake(
    work: Work,
    fill: Callable[[Mapping[str, str], Item], Mapping[str, str]],
    *,
    killers: frozenset[str] = frozenset(),
    seconds: float = 0.0,
) -> Caption:
    """Make a captioner whose model answers by the picture alone.

    Args:
        work, fill: as for every worker.
        killers: the hashes of the pictures that end the process.
        seconds: how long a batch takes.
    """

    def before_batch(requests: list[Request]) -> None:
        for request in requests:
            for message in request.conversation.messages:
                if any(picture.sha256 in killers for picture in message.pictures):
                    os._exit(9)

    model = FakeBatchModel(before_batch=before_batch, seconds=seconds)
    settings = work.settings
    return Captioner(model, settings.prompts, settings.system, SamplingParams(), work.batch_size, fill=fill)
