"""Jobs for tests, as the command line makes them where nothing else is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsvl_cli.app.batch.job import Job
from dsvl_cli.app.batch.options import BatchOptions
from dsvl_cli.engine.options import LoadOptions, SamplingParams

PLAIN = BatchOptions(
    sources=("photos",), recursive=False, extensions=(), every=False, exclude=(), follow_links=False, column=None,
    files_from=None, prompt=None, prompt_file=None, ask=None, allow_private_addresses=False, allow_outside_paths=False,
    system=None, seed=None, out="out.jsonl", format=None, bom=False, existing=None, sidecar=".txt", prefix=None,
    suffix=None, separator=", ", choices=None, yes_no=False, schema=None, samples=1, min_probability=None,
    overwrite=False, report=None, batch_size="auto", retry_errors=False,
    retry_suspect=False, retry_stale=False, max_errors=None, dry_run=False, check=None,
    given=frozenset({"sources", "out"}),
)  # fmt: skip


def options(**values: Any) -> BatchOptions:
    """What stands in `values` is given on the command line."""
    return replace(PLAIN, given=PLAIN.given | values.keys(), **values)


def job(sampling: SamplingParams | None = None, **values: Any) -> Job:
    return Job(options(**values), LoadOptions("tiny"), sampling or SamplingParams())
