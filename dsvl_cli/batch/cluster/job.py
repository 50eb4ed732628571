"""The job: manifest -> pictures -> rows -> shards, as a data set of Ray Data. Imports Ray in functions.

Ray Data schedules it, retries what a lost machine took, and keeps the checkpoint from which a later run resumes. That
works for a data set that is read, mapped and written alone, in blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Any

from dsvl_cli.batch.cluster.actor import CaptionBlock, Work
from dsvl_cli.batch.cluster.output import ClusterOutput
from dsvl_cli.batch.cluster.progress import Teller
from dsvl_cli.batch.cluster.reading import Reading, read_pictures
from dsvl_cli.batch.cluster.start import Workers
from dsvl_cli.errors import DsvlError

_OWN_ERROR = re.compile(r"^dsvl_cli\.errors\.\w+: (.+)$", re.MULTILINE)
_BLOCK_ROWS = 128  # of a task: what a lost worker costs
_MOST_RETRIES = 20  # of a block whose worker ends; Ray Data's own number is infinite
_MOST_INIT_DEATHS = 3  # of workers in a row that load their model, such as on a machine that is lost
_LONGEST_SECONDS = 6 * 3600.0  # without a block that is done: on a CPU one may take longer than Ray's half an hour
_MOST_RESTARTS = 100  # of a worker, before another takes its place


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What a job does.

    Attributes:
        output: where its rows go, with its manifest.
        reading: how pictures are read.
        work: what the workers do.
        workers: how many there are.
        rows_per_shard: the number of rows of a shard.
        max_failed_shards: how many blocks may fail for good before the job does.
    """

    output: ClusterOutput
    reading: Reading
    work: Work
    workers: Workers
    rows_per_shard: int
    max_failed_shards: int

    @property
    def block_rows(self) -> int:
        """The number of pictures of a task; a shard is made of several blocks."""
        return ceil(self.rows_per_shard / ceil(self.rows_per_shard / _BLOCK_ROWS))

    def run(self, ray: Any, gathering: Any) -> None:
        """Run to the end.

        Args:
            ray: the module.
            gathering: the actor that the workers report to.

        Raises:
            DsvlError: too many blocks failed, or the cluster did.
            KeyboardInterrupt, SystemExit: a signal ended it.
        """
        from ray.data import DataContext

        from dsvl_cli.batch.cluster.shards import ShardSink

        context = DataContext.get_current()
        self._prepare(context)
        output, workers = self.output, self.workers
        pictures = (
            ray.data.read_parquet(output.manifest.path, filesystem=output.manifest.filesystem)
            .repartition(target_num_rows_per_block=self.block_rows)
            .map_batches(
                read_pictures,
                fn_kwargs={"reading": self.reading},
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                max_retries=_MOST_RETRIES,
            )
        )
        rows = pictures.map_batches(
            CaptionBlock,
            fn_constructor_args=(self.work, Teller(gathering)),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=workers.least, max_size=workers.most),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            max_restarts=_MOST_RESTARTS,
            max_task_retries=_MOST_RETRIES,
        )
        sink = ShardSink(output.rows.path, output.rows.filesystem, output.settings, self.rows_per_shard)
        try:
            rows.write_datasink(sink, ray_remote_args={"max_retries": _MOST_RETRIES})
        except Exception as exc:
            raise _explain(exc) from exc

    def _prepare(self, context: Any) -> None:
        from ray.data.checkpoint import CheckpointConfig

        place = self.output.checkpoint
        context.checkpoint_config = CheckpointConfig(
            id_column="number",
            checkpoint_path=place.path,
            override_filesystem=place.filesystem,
            delete_checkpoint_on_success=False,  # otherwise the same command would do everything again
        )
        context.max_errored_blocks = self.max_failed_shards
        context.max_consecutive_actor_init_deaths = _MOST_INIT_DEATHS
        context.execution_no_progress_timeout_s = _LONGEST_SECONDS
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.log_internal_stack_trace = False


def _explain(exc: BaseException) -> DsvlError:
    """Return the reason that a worker had, or what Ray says."""
    seen: set[int] = set()
    cause: BaseException | None = exc
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, DsvlError):
            return DsvlError(cause.message, cause.hint)
        cause = getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
    if own := _OWN_ERROR.search(str(exc)):  # of an actor that could not begin, Ray keeps the traceback alone
        return DsvlError(own[1].strip(), "see that all machines of the cluster have the same dsvl and the same files")
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else type(exc).__name__)
    return DsvlError(
        f"the job ended: {said[:300]}",
        "finished shards are kept; --verbose shows what Ray says; run it again to resume",
    )
