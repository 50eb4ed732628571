"""What doctor finds out: on machines that are made up, in installations that are broken."""

from __future__ import annotations

import builtins
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine import diagnosis
from dsvl_cli.engine.diagnosis import Fact, Finding, examine, hide_secrets, is_secret
from dsvl_cli.engine.machine.detect import Gpu, Machine
from dsvl_cli.engine.quantization.formats import FORMATS
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError

GB = 10**9
CPU = Machine(memory_free=16 * GB, cpu_features=frozenset({"avx512_bf16"}))
H200 = Machine(memory_free=64 * GB, cuda=(Gpu("NVIDIA H200", 140 * GB, (9, 0)),), flash_attn=True)
ARC = Machine(memory_free=16 * GB, xpu=(Gpu("Intel Arc", 16 * GB),))
MAC = Machine(memory_free=16 * GB, mps_free=12 * GB, macos=(13, 6))


def texts(finding: Finding) -> dict[str, str]:
    return {fact.name: str(fact) for fact in finding.facts}


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize("error", [DsvlError("no", "do"), OSError("libcudart.so\nlong"), ValueError(), KeyError("x")])
def test_whatever_a_probe_raises_is_a_problem_of_one_line(error: Exception) -> None:
    def fail() -> Finding:
        raise error

    (problem,) = examine(fail).problems
    assert "\n" not in problem.message
    assert type(error).__name__ in problem.message or problem is error


def test_ctrl_c_is_not_a_finding() -> None:
    def interrupt() -> Finding:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(interrupt)


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ("2.9", True),
        ("2.9.0", True),
        ("2.13.0+cpu", True),
        ("3", True),
        ("2.8.9", False),
        ("1.99", False),
        (None, False),
    ],
)
def test_a_package_is_as_new_as_required_or_a_problem(
    monkeypatch: pytest.MonkeyPatch, found: str | None, right: bool
) -> None:
    installed(monkeypatch, {"torch": found} if found else {})
    finding = diagnosis.check_packages(["torch>=2.9", "pillow-heif>=1.0; extra == 'heic'"])
    assert len(finding.problems) == (0 if right else 1)
    assert all("torch>=2.9" in (problem.hint or "") for problem in finding.problems)
    assert {fact.name: fact.value for fact in finding.facts}["torch"] == found


@pytest.mark.parametrize(
    "requirement", ["torch<3,>=2.9", "torch >=2.9,<3 ; python_version < '9'", "torch!=2.9.1,>=2.9"]
)
def test_a_lower_bound_counts_wherever_it_stands(requirement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"torch": "2.8.0"})
    (problem,) = diagnosis.check_packages([requirement]).problems
    assert problem.message == "torch is 2.8.0, but dsvl needs at least 2.9"


def test_what_dsvl_requires_is_found_and_here() -> None:
    requirements = diagnosis.find_requirements()
    assert any(requirement.startswith("torch>=") for requirement in requirements)
    assert diagnosis.check_packages(requirements).problems == []


def test_optional_packages_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"torchao": "0.18.0"})
    finding = diagnosis.check_packages([])
    assert texts(finding)["torchao"] == "0.18.0"
    assert "optional" in texts(finding)["flash-attn"]
    assert not finding.problems


def test_cpu_features_are_those_that_matter() -> None:
    assert diagnosis.read_features("flags\t\t: fpu avx512_bf16 avx512_vnni amx_int8 sse2\n") == [
        "avx512_bf16", "avx512_vnni", "amx_int8",
    ]  # fmt: skip
    assert diagnosis.read_features("Features : asimd bf16 i8mm\n") == ["asimd", "bf16", "i8mm"]
    assert diagnosis.read_features("model name: avx2\n") == []


def test_the_computer_is_described(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu\n")
    found = texts(diagnosis.describe_computer(cpuinfo))
    assert found["cpu_features"] == "none of the relevant ones"
    assert sys.executable in found["python"]
    assert "cpu_features" not in texts(diagnosis.describe_computer(tmp_path / "missing"))


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("libtorch_cpu.so: cannot open\nshared")])
def test_a_torch_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    original = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torch":
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(DsvlError, match="torch cannot be imported") as caught:
        diagnosis.find_machine()
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "flash"),
    [
        (CPU, "cpu", "bfloat16", False),
        (Machine(memory_free=GB), "cpu", "bfloat16", False),
        (H200, "cuda:0", "bfloat16", True),
        (ARC, "xpu", "bfloat16", False),
        (MAC, "mps", "float16", False),
    ],
    ids=["cpu", "old cpu", "cuda", "xpu", "mps"],
)
def test_choices_are_told_with_their_reasons(machine: Machine, device: str, dtype: str, flash: bool) -> None:
    values = {fact.name: fact.value for fact in diagnosis.describe_choices(machine).facts}
    assert values["device"]["value"] == device
    assert values["dtype"]["value"] == dtype
    assert values["dtype"]["reason"]
    assert values["flash_attention_2"]["works"] == flash
    assert values["sdpa"]["works"]
    assert [entry["device"] for entry in values["devices"]] == list(machine.devices)


def test_a_gpu_is_shown_with_its_memory() -> None:
    assert f"cuda:0 (NVIDIA H200, {format_bytes(140 * GB)} free)" in texts(diagnosis.describe_choices(H200))["devices"]


def test_every_format_is_told_for_every_kind_of_device() -> None:
    facts = diagnosis.describe_quantization(["cpu", "cuda:0", "cuda:1"]).facts
    assert [fact.name for fact in facts] == [f"{kind} {name}" for kind in ("cpu", "cuda") for name in FORMATS]
    assert all(set(fact.value) == {"float32", "bfloat16", "float16", "installed"} for fact in facts)
    assert "does not work" in texts(Finding(facts))["cpu torchao-int4"]


def test_a_format_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_spec", lambda name: None if name == "torchao" else object())
    facts = {fact.name: fact for fact in diagnosis.describe_quantization(["cpu"]).facts}
    assert facts["cpu torchao-int8"].value["installed"] is False
    assert "torchao is not installed" in str(facts["cpu torchao-int8"])
    assert facts["cpu bnb-nf4"].value["installed"] is True


def test_the_embedded_model_is_whole_or_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not examine(diagnosis.check_embedded_model).problems
    monkeypatch.setattr("dsvl_cli.engine.checkpoint.find.EMBEDDED_FOLDER", tmp_path)
    (problem,) = examine(diagnosis.check_embedded_model).problems
    assert "install" in (problem.hint or "")


def write_snapshot(cache: Path, repo: str, model_type: str, names: list[str]) -> None:
    """Put a repository into a hub cache, each file 1000 bytes long or more."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    for name in names:
        content = json.dumps({"model_type": model_type}) if name == "config.json" else "{}"
        (snapshot / name).write_text(content.ljust(1000))


WHOLE = ["config.json", "tokenizer.json", "processor_config.json", "model.safetensors"]


def test_the_hub_cache_lists_our_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    write_snapshot(tmp_path, "org/whole", "deepseek_vl", WHOLE)
    write_snapshot(tmp_path, "org/part", "deepseek_vl_hybrid", WHOLE[:3])
    write_snapshot(tmp_path, "org/other", "llama", WHOLE)
    (tmp_path / "models--org--broken").mkdir()
    values = {fact.name: fact.value for fact in diagnosis.describe_hub_cache().facts}
    assert values["org/whole"] == {"bytes": 4000, "whole": True}
    assert values["org/part"] == {"bytes": 3000, "whole": False}
    assert "org/other" not in values
    assert values["others_bytes"] == 4000


def test_a_hub_cache_that_is_not_there_is_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none" / "yet"))
    finding = diagnosis.describe_hub_cache()
    assert texts(finding)["models"] == "none yet"
    assert not finding.problems


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not diagnosis.check_disk(tmp_path / "not" / "there").problems
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    (problem,) = diagnosis.check_disk(tmp_path).problems
    assert format_bytes(1000) in problem.message


@pytest.mark.parametrize(
    ("name", "secret"),
    [("HF_TOKEN", True), ("HUGGING_FACE_HUB_TOKEN", True), ("AWS_SECRET_ACCESS_KEY", True), ("DB_PASSWORD", True)]
    + [(name, False) for name in ("DSVL_MAX_NEW_TOKENS", "TOKENIZERS_PARALLELISM", "HF_HOME", "PATH")],
)
def test_secret_variables_are_known_by_their_names(name: str, secret: bool) -> None:
    assert is_secret(name) == secret


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON, before=st.text(max_size=5), after=st.text(max_size=5))
def test_a_secret_is_hidden_wherever_it_stands(value: Any, before: str, after: str) -> None:
    secret = "s3cr3t-v4lue"
    hidden = hide_secrets({"a": [value, f"{before}{secret}{after}"], "b": value}, {"MY_TOKEN": secret})
    assert secret not in json.dumps(hidden)
    assert hidden["b"] == hide_secrets(value, {})


def test_tokens_and_passwords_in_addresses_are_hidden() -> None:
    hidden = hide_secrets("hf_abcdefghijkl http://me:pw@proxy:80/x https://hub/y", {})
    assert "abcdefghijkl" not in hidden
    assert "pw" not in hidden
    assert "@proxy:80/x https://hub/y" in hidden


def test_a_short_value_tears_no_words_apart() -> None:
    assert hide_secrets("one 1", {"HF_TOKEN": "1"}) == "one 1"


def test_a_fact_is_its_text_or_its_value() -> None:
    assert str(Fact("a", 5)) == "5"
    assert str(Fact("a", 5, "five")) == "five"
