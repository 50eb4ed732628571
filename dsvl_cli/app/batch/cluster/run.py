"""Runs a batch on a cluster: the manifest, the job, its progress, and what is said at the end."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dsvl_cli.app.batch.cluster.checks import check_cluster_job
from dsvl_cli.app.batch.cluster.conclusion import ClusterOutcome, conclude_job, write_job_report
from dsvl_cli.app.batch.paths import check_report_place
from dsvl_cli.batch.cluster.actor import Work, make_captioner
from dsvl_cli.batch.cluster.job import ClusterJob
from dsvl_cli.batch.cluster.manifest import Addresses, Manifest
from dsvl_cli.batch.cluster.output import STATE_SUFFIX, ClusterOutput
from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.progress import Sum, start_gathering
from dsvl_cli.batch.cluster.reading import Reading
from dsvl_cli.batch.cluster.start import check_installed, choose_workers, list_open_ports, parse_workers, started
from dsvl_cli.batch.output.report import check_report
from dsvl_cli.batch.runner import FAILURES_IN_A_ROW, Ending
from dsvl_cli.batch.sources.leftovers import Skipped
from dsvl_cli.batch.stopping import StopSignals
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.engine.options import count_cpus
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.errors import DsvlError, SomeFailed
from dsvl_cli.terminal.batch import BatchProgress
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.batch.cluster.manifest import Entry
    from dsvl_cli.batch.item import Item
    from dsvl_cli.batch.output.settings import Settings
    from dsvl_cli.terminal.console import Console

_POLL_SECONDS = 0.5
_ASK_SECONDS = 10.0
_MOST_PORTS = 8


def make_rows_on_cluster(console: Console, job: Job, make: Any = make_captioner) -> None:
    """Start or resume a batch on a cluster.

    Args:
        console: where to show what happens.
        job: the batch.
        make: makes the captioner of a worker.

    Raises:
        SomeFailed: some rows are errors, or missing; each was reported.
        DsvlError: Ray is not installed, a source does not exist, the output is from something else, or the job failed.
        KeyboardInterrupt, SystemExit: a signal ended the run; finished shards were kept.
    """
    check_cluster_job(job)
    check_installed()
    options = job.options
    job.questions(has_chat=True)  # a mistake in them is to be seen before a model is downloaded
    batch_size = job.batch_size
    if options.report is not None:
        check_report_place(options.report)
        check_report(options.report)
    place = Place.open(str(options.out))
    with console.working(Wait(f"checking {job.load.model}", CTRL_C_STOPS)):
        checkpoint = find_checkpoint(job.load, ConsoleListener(console))
    settings = replace(
        job.settings(checkpoint, job.questions(has_chat=checkpoint.has_chat)), format=options.format or "parquet"
    )
    unread: list[str] = []
    skipped = Skipped()
    items = job.items(unread.append, None, skipped)  # first: without its pictures, a run leaves nothing behind
    with ClusterOutput(place, settings) as output:
        manifest, found = _write_manifest(console, job, output, items)
        with console.working(Wait("reading what is done", CTRL_C_STOPS)):
            before = output.count()
        outcome = ClusterOutcome(output, found, skipped, manifest.count - before.total(), before)
        reading = _make_reading(job, output.settings)
        if outcome.due:
            _remove_notes(output)
            _run(console, job, Work(job.load, output.settings, batch_size, output.trials, make), reading, outcome)
        if options.report is not None and outcome.signal_number is None:
            with console.working(Wait("writing the report", CTRL_C_STOPS)):
                write_job_report(options, output, manifest, reading)
        for text in unread:
            console.warn(text)
        conclude_job(console, options, outcome)
        if unread:
            raise SomeFailed("folders could not be read")


def _make_reading(job: Job, settings: Settings) -> Reading:
    options = job.options
    access = Access(job.load.offline, options.allow_private_addresses, options.allow_outside_paths)
    return Reading(access, options.column, settings.prompts, settings.sidecar)


def _write_manifest(console: Console, job: Job, output: ClusterOutput, items: Iterator[Item]) -> tuple[Manifest, int]:
    """Add the pictures to the manifest that are not in there; return it, and how many were found."""
    manifest = Manifest(output.manifest)
    addresses = Addresses(job.options.sources, str(output.settings.base))
    wait = Wait("looking for pictures", CTRL_C_STOPS)

    def tell(count: int) -> None:
        wait.what = f"looking for pictures: {count:,}"

    def entries() -> Iterator[Entry]:
        own = tuple(f"{place}{os.sep}" for place in (output.rows.path, output.rows.path + STATE_SUFFIX))
        for item in items:
            entry = addresses.entry(item)
            if not entry.address.startswith(own) or not output.rows.is_local:
                yield entry

    with console.working(wait):
        manifest.load()
        found = manifest.extend(entries(), tell)
    return manifest, found


def _remove_notes(output: ClusterOutput) -> None:
    """Remove the notes of an earlier run about pictures that its workers had begun with."""
    for info in output.trials.files():
        name = str(info.path).rpartition("/")[2]
        if name.startswith("block-"):
            output.trials.within(name).delete()


def _run(console: Console, job: Job, work: Work, reading: Reading, outcome: ClusterOutcome) -> None:
    options, threads = job.options, job.load.threads
    wanted = parse_workers(options.workers) if options.workers is not None else None
    starting = "starting Ray" if options.ray_address == "local" else f"connecting to Ray at {options.ray_address}"
    with ExitStack() as stack:
        console.status(starting)
        ray = stack.enter_context(started(options.ray_address, wanted, threads, verbose=console.verbose))
        if options.ray_address == "local":
            _say_what_listens(console)
        resources = ray.cluster_resources()
        if wanted is None and options.ray_address == "local" and not resources.get("GPU"):
            wanted = 1, 1
        workers = choose_workers(wanted, options.gpus_per_worker, threads, resources)
        if options.ray_address == "local" and not workers.gpus and threads is None:
            # Ray would let each have a single thread.
            work = replace(work, load=replace(work.load, threads=max(1, count_cpus() // workers.most)))
        console.status(f"{workers}")
        cluster_job = ClusterJob(
            outcome.output, reading, work, workers, options.rows_per_shard, options.max_failed_shards
        )
        gathering = start_gathering(ray)
        progress = BatchProgress(console, outcome.before.total(), str(options.out), due=lambda: outcome.due)
        watch = _Watch(ray, gathering, progress, options.max_errors, outcome)
        with StopSignals(watch.stop) as signals:
            try:
                progress.start()
                watch.start()
                cluster_job.run(ray, gathering)
            except (KeyboardInterrupt, DsvlError):
                if signals.number is None:
                    raise
            finally:
                watch.close()
                progress.close()
        if watch.ending == "done":
            outcome.signal_number = signals.number
        outcome.ending, outcome.seconds = watch.ending, progress.seconds


def _say_what_listens(console: Console) -> None:
    ports = list_open_ports()
    if ports:
        named = ", ".join(map(str, ports[:_MOST_PORTS])) + (", ..." if len(ports) > _MOST_PORTS else "")
        console.status(
            f"Ray listens on all interfaces of this machine while it runs, ports {named}; a firewall closes them"
        )


class _Watch:
    """Shows the progress from a thread, and ends a job in which too much fails."""

    def __init__(
        self, ray: Any, gathering: Any, progress: BatchProgress, max_errors: int | None, outcome: ClusterOutcome
    ) -> None:
        self.ending: Ending = "done"
        self._ray = ray
        self._gathering = gathering
        self._progress = progress
        self._max_errors = max_errors
        self._outcome = outcome
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the job; called by the handler of a signal."""
        if self.ending == "done":
            self._progress.say("stopping: finished shards are kept; interrupt again to stop at once")
        raise KeyboardInterrupt

    def close(self) -> None:
        """Look for the last time."""
        self._is_closed.set()
        with suppress(KeyboardInterrupt):
            self._thread.join(_ASK_SECONDS)

    def _poll(self) -> None:
        while not self._is_closed.wait(_POLL_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            found: Sum = self._ray.get(self._gathering.ask.remote(), timeout=_ASK_SECONDS)
        except Exception:  # the actor is being started again, or Ray is at its end
            return
        outcome = self._outcome
        for message in found.messages:
            self._progress.error(message)
        if found.done:
            self._progress.update(min(found.done, outcome.due), outcome.due, found.failed, found.suspect)
        if self.ending == "done" and not self._is_closed.is_set():
            if self._max_errors is not None and found.failed > self._max_errors:
                self._end("max-errors")
            elif found.in_a_row >= FAILURES_IN_A_ROW:
                self._end("all-fail")

    def _end(self, ending: Ending) -> None:
        self.ending = ending
        signal.raise_signal(signal.SIGINT)
