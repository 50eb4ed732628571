"""The Kubernetes job of docs/cluster.md is a RayJob, and its command is one that dsvl takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dsvl_cli.app.batch.options import BatchOptions
from dsvl_cli.cli import main

JOB = Path(__file__).parents[3] / "docs/rayjob.yaml"
SCHEMA = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())


def load() -> Any:
    return yaml.safe_load(JOB.read_text())


def test_it_is_a_ray_job() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(load())] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(entryPoint="x"),
        lambda job: job["spec"].pop("entrypoint"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="1"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 4}),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"][
            "limits"
        ].update(memory="16 GB"),
    ],
)
def test_the_schema_finds_mistakes(change: Any) -> None:
    job = load()
    change(job)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(job)


def test_its_command_is_valid_and_its_versions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[BatchOptions] = []
    monkeypatch.setattr(
        "dsvl_cli.app.batch.batch.run_batch", lambda console, options, load, sampling: found.append(options)
    )
    job = load()
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "dsvl"
    assert main(arguments) == 0
    (values,) = found
    assert (values.engine, values.ray_address, values.workers) == ("ray", "auto", "1:8")
    cluster = job["spec"]["rayClusterSpec"]
    images = {
        container["image"].rpartition(":")[2]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    }
    assert images == {cluster["rayVersion"]}
