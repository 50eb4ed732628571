"""`dsvl batch SOURCE... -o OUT`: ask about every picture of a folder, a list or a data set."""

from __future__ import annotations

import typer

from dsvl_cli.commands import batch_options, options
from dsvl_cli.commands.options import LOADING, SAMPLING

HELP_EPILOG = """
# Caption a folder and its subfolders. After a crash or Ctrl-C, the same command resumes.
$ dsvl batch photos -r -o captions.jsonl

# Write a table; write a text file beside each picture; ask several questions, one column each.
$ dsvl batch photos -o captions.csv -p "What is in this picture?"
$ dsvl batch photos -o photos --existing skip
$ dsvl batch photos -o answers.parquet --ask questions.toml

# Answer five times; the report shows where the answers disagree.
$ dsvl batch photos --samples 5 -o answers.csv --report answers.html

# Read paths from a pipe, write rows to a pipe.
$ find . -name '*.jpg' | dsvl batch --files-from - -o - | jq .text

# Leave out some files. Put the name of each picture, or a caption that it has, into the prompt.
$ dsvl batch photos -r -o captions.jsonl --exclude '*_thumb.*' --exclude raw
$ dsvl batch photos -o new.jsonl -p "Correct this caption: {caption}"

# Write captions for training, or a data set for Hugging Face's datasets.
$ dsvl batch photos -o photos --sidecar .caption --prefix "sks style"
$ dsvl batch photos -r -o photos --format imagefolder

# Retry what failed; list what is out of date, and redo it.
$ dsvl batch photos -o captions.jsonl --retry-errors
$ dsvl batch --check captions.jsonl
$ dsvl batch photos -o captions.jsonl --retry-stale
"""


def batch(
    ctx: typer.Context,
    sources: batch_options.Sources = None,
    recursive: batch_options.Recursive = False,
    ext: batch_options.Extensions = None,
    all_: batch_options.All = False,
    exclude: batch_options.Exclude = None,
    follow_links: batch_options.FollowLinks = False,
    column: batch_options.Column = None,
    files_from: batch_options.FilesFrom = None,
    allow_private_addresses: batch_options.AllowPrivateAddresses = False,
    allow_outside_paths: batch_options.AllowOutsidePaths = False,
    prompt: batch_options.Prompt = None,
    prompt_file: batch_options.PromptFile = None,
    ask: batch_options.Ask = None,
    choices: options.Choices = None,
    yes_no: options.YesNo = False,
    schema: options.Schema = None,
    samples: options.Samples = 1,
    min_probability: batch_options.MinProbability = None,
    out: batch_options.Out = None,
    format: batch_options.FormatOption = None,  # noqa: A002
    bom: batch_options.Bom = False,
    existing: batch_options.ExistingOption = None,
    sidecar: batch_options.Sidecar = ".txt",
    prefix: batch_options.Prefix = None,
    suffix: batch_options.Suffix = None,
    separator: batch_options.Separator = ", ",
    overwrite: batch_options.Overwrite = False,
    report: batch_options.Report = None,
    batch_size: batch_options.BatchSize = "auto",
    retry_errors: batch_options.RetryErrors = False,
    retry_suspect: batch_options.RetrySuspect = False,
    retry_stale: batch_options.RetryStale = False,
    max_errors: batch_options.MaxErrors = None,
    dry_run: batch_options.DryRun = False,
    check: batch_options.Check = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = SAMPLING.max_new_tokens,
    temperature: options.Temperature = SAMPLING.temperature,
    top_p: options.TopP = SAMPLING.top_p,
    top_k: options.TopK = SAMPLING.top_k,
    min_p: options.MinP = SAMPLING.min_p,
    repetition_penalty: options.RepetitionPenalty = SAMPLING.repetition_penalty,
    seed: options.Seed = SAMPLING.seed,
    stop: options.Stop = None,
    model: options.Model = LOADING.model,
    profile: options.Profile = None,
    revision: options.Revision = LOADING.revision,
    offline: options.Offline = LOADING.offline,
    device: options.Device = LOADING.device,
    dtype: options.DtypeOption = LOADING.dtype,
    attn_implementation: options.AttentionOption = LOADING.attn_implementation,
    device_map: options.DeviceMapOption = LOADING.device_map,
    threads: options.Threads = LOADING.threads,
    quantization: options.QuantizationOption = LOADING.quantization,
    group_size: options.GroupSize = LOADING.group_size,
    include_vision: options.IncludeVision = LOADING.include_vision,
    include_head: options.IncludeHead = LOADING.include_head,
    force: options.Force = LOADING.force,
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Ask about many pictures: one row per picture, with an answer or an error.

    Each row is saved as soon as it is done. After an interruption, even a kill, the same command resumes the run.
    """
    from dsvl_cli.app.batch.batch import run_batch
    from dsvl_cli.app.batch.options import BatchOptions

    asked = BatchOptions(
        sources=tuple(sources or ()),
        recursive=recursive,
        extensions=tuple(ext or ()),
        every=all_,
        exclude=tuple(exclude or ()),
        follow_links=follow_links,
        column=column,
        files_from=files_from,
        allow_private_addresses=allow_private_addresses,
        allow_outside_paths=allow_outside_paths,
        prompt=prompt,
        prompt_file=prompt_file,
        ask=ask,
        choices=choices,
        yes_no=yes_no,
        schema=schema,
        samples=samples,
        min_probability=min_probability,
        system=system,
        seed=seed,
        out=out or ("-" if dry_run else None),  # to count pictures needs no output
        format=format,
        bom=bom,
        existing=existing,
        sidecar=sidecar,
        prefix=prefix,
        suffix=suffix,
        separator=separator,
        overwrite=overwrite,
        report=report,
        batch_size=batch_size,
        retry_errors=retry_errors,
        retry_suspect=retry_suspect,
        retry_stale=retry_stale,
        max_errors=max_errors,
        dry_run=dry_run,
        check=check,
        given=options.given(ctx),
    )
    run_batch(options.make_console(ctx), asked, options.load_options(ctx.params), options.sampling_for_samples(ctx))
