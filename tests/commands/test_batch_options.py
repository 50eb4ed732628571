"""Every option of `dsvl batch` arrives where it belongs, under its own name and with its type."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.app.batch.options import BatchOptions
from dsvl_cli.cli import main
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.terminal.console import Console
from tests.app.batch.jobs import PLAIN


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BatchOptions]:
    """What the command was asked for, in place of doing it."""
    found: list[BatchOptions] = []

    def run(console: Console, options: BatchOptions, load: LoadOptions, sampling: SamplingParams) -> None:
        found.append(options)

    monkeypatch.setattr("dsvl_cli.app.batch.batch.run_batch", run)
    return found


GIVEN: list[tuple[list[str], dict[str, Any]]] = [
    (["b", "c"], {"sources": ("photos", "b", "c")}),
    (["-r"], {"recursive": True}),
    (["--ext", "png,jpg", "--ext", "gif"], {"extensions": ("png,jpg", "gif")}),
    (["--all"], {"every": True}),
    (["--exclude", "a", "--exclude", "b/*"], {"exclude": ("a", "b/*")}),
    (["--follow-links"], {"follow_links": True}),
    (["--column", "image"], {"column": "image"}),
    (["--files-from", "-"], {"files_from": "-"}),
    (["--allow-private-addresses"], {"allow_private_addresses": True}),
    (["--allow-outside-paths"], {"allow_outside_paths": True}),
    (["-p", "What?"], {"prompt": "What?"}),
    (["--prompt-file", "q.txt"], {"prompt_file": Path("q.txt")}),
    (["--ask", "q.toml"], {"ask": Path("q.toml")}),
    (["-s", ""], {"system": ""}),
    (["--seed", "3"], {"seed": 3}),
    (["-o", "-"], {"out": "-"}),
    (["--format", "openai"], {"format": "openai"}),
    (["--existing", "append"], {"existing": "append"}),
    (["--bom"], {"bom": True}),
    (["--sidecar", ".caption"], {"sidecar": ".caption"}),
    (["--prefix", "sks"], {"prefix": "sks"}),
    (["--suffix", "photo"], {"suffix": "photo"}),
    (["--separator", " "], {"separator": " "}),
    (["--overwrite"], {"overwrite": True}),
    (["--report", "r.html"], {"report": Path("r.html")}),
    (["--batch-size", "7"], {"batch_size": "7"}),
    (["--retry-errors"], {"retry_errors": True}),
    (["--retry-suspect"], {"retry_suspect": True}),
    (["--retry-stale"], {"retry_stale": True}),
    (["--max-errors", "0"], {"max_errors": 0}),
    (["--dry-run"], {"dry_run": True}),
    (["--check", "old.jsonl"], {"check": "old.jsonl"}),
    (["--choices", "Red,Blue"], {"choices": "Red,Blue"}),
    (["--yes-no"], {"yes_no": True}),
    (["--schema", "count int"], {"schema": "count int"}),
    (["--samples", "3"], {"samples": 3}),
    (["--min-probability", "0.5"], {"min_probability": 0.5}),
]


@pytest.mark.parametrize(("arguments", "values"), [([], {}), *GIVEN])
def test_an_option_changes_its_own_field_and_no_other(
    asked: list[BatchOptions], arguments: list[str], values: dict[str, Any]
) -> None:
    assert main(["batch", "photos", "-o", "out.jsonl", *arguments]) == 0
    (found,) = asked
    named = {{"extensions": "ext", "every": "all_"}.get(name, name) for name in values}
    assert found == replace(PLAIN, **values, given=PLAIN.given | named)
    for name, value in values.items():
        assert type(getattr(found, name)) is type(value)


def test_every_field_has_an_option() -> None:
    assert {name for _, values in GIVEN for name in values} == {field.name for field in fields(BatchOptions)} - {
        "given"
    }
