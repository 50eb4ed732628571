"""Which options of `dsvl batch` work with `--engine ray`; the others are refused before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.batch.cluster.start import parse_workers
from dsvl_cli.batch.sources.remote_files import is_remote
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.app.batch.options import BatchOptions

# The names of the fields, with what to do instead.
_LOCAL_ONLY = {
    "existing": "shards are no text files beside the pictures",
    "sidecar": "",
    "prefix": "shards are no text files beside the pictures",
    "suffix": "shards are no text files beside the pictures",
    "separator": "shards are no text files beside the pictures",
    "bom": "shards are Parquet tables or .jsonl files",
    "overwrite": "write elsewhere with -o, or remove the folder and the one beside it that ends with .dsvl",
    "retry_errors": "ask again about the pictures of these rows, with --files-from and another -o",
    "retry_suspect": "ask again about the pictures of these rows, with --files-from and another -o",
    "retry_stale": "ask again about the pictures of these rows, with --files-from and another -o",
    "dry_run": "the local engine shows what would be done",
    "check": "the local engine checks its own outputs",
}
_CLUSTER_ONLY = ("ray_address", "workers", "gpus_per_worker", "rows_per_shard", "max_failed_shards")


def check_engine(options: BatchOptions) -> None:
    """Refuse options of the other engine.

    Raises:
        UsageError: one is given.
    """
    if options.engine == "local":
        given = [name for name in _CLUSTER_ONLY if name in options.given]
        if given:
            raise UsageError(f"{_flag(given[0])} is for a cluster", "add --engine ray")
        return
    for name, hint in _LOCAL_ONLY.items():
        # The extension of text files is also where {caption} is looked for.
        if name in options.given and name != "sidecar":
            raise UsageError(f"{_flag(name)} cannot be used with --engine ray", hint)
    if options.format not in (None, "parquet", "jsonl"):
        raise UsageError(f"--format {options.format} cannot be used with --engine ray", "use parquet or jsonl")
    if options.workers is not None:
        parse_workers(options.workers)


def check_cluster_job(job: Job) -> None:
    """Refuse what a cluster cannot do.

    Raises:
        UsageError: the output is no folder, or a source can only be read here.
    """
    options = job.options
    if options.out is None:
        raise UsageError("no output is given", "add -o captions, or -o s3://bucket/captions")
    if options.out == "-":
        raise UsageError("--engine ray writes a folder of shards, and not to stdout", "name a folder with -o")
    if options.out.lower().endswith((".jsonl", ".ndjson", ".csv", ".parquet", ".txt")):
        raise UsageError(
            f"--engine ray writes a folder of shards, and {options.out} is named like a file",
            "name a folder with -o; --format parquet or jsonl says what is in it",
        )
    requests = next((source for source in options.sources if source.lower().endswith(".jsonl")), None)
    if requests is not None:
        raise UsageError(f"--engine ray takes pictures, and {requests} has requests", "leave out --engine ray")
    if job.load.offline and (remote := next(filter(is_remote, (*options.sources, options.out)), None)):
        raise UsageError(f"--offline forbids a connection, but {remote} needs one", "leave out --offline")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
