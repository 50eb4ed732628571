from __future__ import annotations

import errno
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, Checkpoint, check_folder
from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.conversion.compare import draw_pictures, follow
from dsvl_cli.engine.conversion.convert import check_target, quantize_checkpoint
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
from dsvl_cli.engine.network.model_class import find_model_class, make_skeleton
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.backends import make_quantization_config
from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS, Recipe, Verdict, find_cell
from dsvl_cli.engine.quantization.selection import select_layers
from dsvl_cli.engine.storage import files
from dsvl_cli.errors import DsvlError
from tests.engine.quantization.quantized_layers import find_quantized_layers

ON_CPU = sorted(name for name in STORED_FORMATS if find_cell(name, "cpu", "bfloat16").verdict is Verdict.WORKS)


@pytest.fixture(scope="module")
def source() -> Checkpoint:
    return check_folder("tiny", EMBEDDED_FOLDER)


@pytest.fixture(scope="module")
def quantized(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes tiny in a format, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("quantized") / name
            quantize_checkpoint(source, made[name], Recipe(FORMATS[name]), Silence())
        return made[name]

    return make


def save_with_transformers(source: Checkpoint, name: str, folder: Path, **options: Any) -> None:
    recipe = Recipe(FORMATS[name])
    import_backend(recipe.format.package)
    selection = select_layers(make_skeleton(source), recipe)
    with mute_libraries():
        model = find_model_class(source.model_type).from_pretrained(
            source.path,
            dtype="auto",
            device_map="cpu",
            quantization_config=make_quantization_config(recipe, selection, "cpu"),
        )
        model.save_pretrained(folder, **options)


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata |= file.metadata()
    return tensors, {key: json.loads(text) if text[0] in "[{" else text for key, text in metadata.items()}


@pytest.mark.parametrize("name", ON_CPU)
def test_it_writes_what_transformers_would(
    source: Checkpoint, quantized: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    save_with_transformers(source, name, tmp_path)
    ours, theirs = quantized(name), tmp_path
    assert sorted(path.name for path in ours.glob("*.safetensors")) == ["model.safetensors"]
    (our_tensors, our_metadata), (their_tensors, their_metadata) = read_weights(ours), read_weights(theirs)
    assert our_tensors.keys() == their_tensors.keys()
    for key, tensor in our_tensors.items():
        assert tensor.dtype == their_tensors[key].dtype, key
        assert tensor.shape == their_tensors[key].shape, key
        assert torch.equal(tensor, their_tensors[key]), key
    assert our_metadata == their_metadata
    our_config, their_config = (json.loads((folder / "config.json").read_text()) for folder in (ours, theirs))
    for part in ("text_config", "vision_config"):  # loading notes the dtype in each part
        their_config[part].pop("dtype", None)
    assert our_config == their_config


@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "bnb-int8"])
def test_it_loads_without_flags_and_is_what_loading_with_the_flag_gives(
    quantized: Callable[[str], Path], name: Any
) -> None:
    ours = load_model(LoadOptions(model=str(quantized(name)), device="cpu", dtype="bfloat16"))
    at_load = load_model(LoadOptions(model="tiny", quantization=name, device="cpu", dtype="bfloat16"))
    assert find_quantized_layers(ours.network.module) == find_quantized_layers(at_load.network.module)
    ids = torch.tensor([list(range(7, 40))])
    with torch.inference_mode():
        one, other = (model.network.module(input_ids=ids).logits for model in (ours, at_load))
    assert torch.equal(one, other)


def test_8_bits_run_in_our_kernels_nearly_as_in_bitsandbytes(quantized: Callable[[str], Path]) -> None:
    ours = load_model(LoadOptions(model=str(quantized("bnb-int8")), device="cpu", dtype="float32"))
    theirs = load_model(LoadOptions(model="tiny", quantization="bnb-int8", device="cpu", dtype="float32"))
    assert ours.network.module is None
    assert find_quantized_layers(theirs.network.module)
    one, other = (expect_first(model, draw_pictures()[0]) for model in (ours, theirs))
    assert float(torch.nn.functional.kl_div(one, other, log_target=True, reduction="sum")) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ON_CPU)
def test_it_computes_in_any_dtype(quantized: Callable[[str], Path], name: Any, dtype: Any) -> None:
    ours = load_model(LoadOptions(model=str(quantized(name)), device="cpu", dtype=dtype))
    picture = draw_pictures()[0]
    logits = expect_first(ours, picture)
    plain = load_model(LoadOptions(model="tiny", device="cpu", dtype="float32"))
    divergence = torch.nn.functional.kl_div(logits, expect_first(plain, picture), log_target=True, reduction="sum")
    assert float(divergence) < 0.5


def expect_first(model: VisionLanguageModel, picture: Picture) -> torch.Tensor:
    """The log-probabilities of the first token about a picture."""
    return follow(model, [picture], [[0]]).log_probs[0][0]


def test_everything_that_a_model_needs_is_copied(quantized: Callable[[str], Path]) -> None:
    folder = quantized("bnb-nf4")
    here = {path.name for path in folder.iterdir()}
    assert {path.name for path in EMBEDDED_FOLDER.iterdir()} - {"README.md"} <= here
    assert "README.md" in here
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (EMBEDDED_FOLDER / name).read_bytes()
    page = (folder / "README.md").read_text()
    for word in ("tiny", "bnb-nf4", "layers.*.mlp.up_proj", "bitsandbytes", "fingerprint", "MB"):
        assert word in page


def test_several_files_are_as_good_as_one(source: Checkpoint, quantized: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("bnb-nf4", "torchao-int8"):
        folder = tmp_path / name
        written = quantize_checkpoint(source, folder, Recipe(FORMATS[name]), Silence(), shard_bytes=10**6)
        files = sorted(path.name for path in folder.glob("*.safetensors"))
        assert len(files) > 3
        assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
        tensors, metadata = read_weights(folder)
        whole, whole_metadata = read_weights(quantized(name))
        assert tensors.keys() == whole.keys()
        assert all(torch.equal(tensor, whole[key]) for key, tensor in tensors.items())
        assert metadata == whole_metadata
        assert written.weight_bytes == sum(tensor.nbytes for tensor in tensors.values())
        load_model(LoadOptions(model=str(folder), device="cpu"))


def test_names_of_older_versions_are_understood(source: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    old = tmp_path / "old"
    old.mkdir()
    for path in EMBEDDED_FOLDER.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (old / path.name).write_bytes(path.read_bytes())
    tensors, _ = read_weights(EMBEDDED_FOLDER)
    prefix = "model.vision_model."
    save_file(
        {key.replace(prefix, f"{prefix}vision_model."): tensor for key, tensor in tensors.items()},
        old / "model.safetensors",
        {"format": "pt"},
    )
    new = tmp_path / "new"
    quantize_checkpoint(check_folder("old", old), new, Recipe(FORMATS["bnb-int8"]), Silence())
    written, _ = read_weights(new)
    assert torch.equal(written[f"{prefix}post_layernorm.weight"], tensors[f"{prefix}post_layernorm.weight"])


# --- what is refused


def test_a_quantized_checkpoint_is_not_quantized_again(quantized: Callable[[str], Path], tmp_path: Path) -> None:
    again = check_folder("again", quantized("bnb-nf4"))
    with pytest.raises(DsvlError, match="already quantized, as bnb-nf4"):
        quantize_checkpoint(again, tmp_path / "out", Recipe(FORMATS["bnb-int8"]), Silence())


def test_folders_that_must_not_be_written_are_refused(tmp_path: Path) -> None:
    model, other, link = tmp_path / "model", tmp_path / "other", tmp_path / "link"
    model.mkdir()
    (model / "config.json").touch()
    other.mkdir()
    link.symlink_to(model)
    for target in (model, link, link / "below", tmp_path, tmp_path / "other" / ".." / "model"):
        with pytest.raises(DsvlError, match="contains the model or is inside"):
            check_target(model, target, overwrite=True)
    with pytest.raises(DsvlError, match="already exists") as caught:
        check_target(model, other, overwrite=False)
    assert "--overwrite" in str(caught.value.hint)
    assert check_target(model, other, overwrite=True) == other
    (other / "thesis.tex").touch()
    with pytest.raises(DsvlError, match="is not a model"):
        check_target(model, other, overwrite=True)
    with pytest.raises(DsvlError, match="is a file"):
        check_target(model, other / "thesis.tex", overwrite=True)
    assert check_target(model, tmp_path / "new", overwrite=False) == tmp_path / "new"


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 60 * 10**6})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DsvlError, match=r"has 60\.0 MB free"):
        quantize_checkpoint(source, tmp_path / "out", Recipe(FORMATS["bnb-nf4"]), Silence())
    assert os.listdir(tmp_path) == []


# --- ends at every write


def _count_steps(source: Checkpoint, target: Path) -> int:
    steps = [0]

    def count() -> None:
        steps[0] += 1

    with _stepping(count):
        quantize_checkpoint(source, target, Recipe(FORMATS["bnb-nf4"]), Silence(), shard_bytes=10**6)
    return steps[0]


class _stepping:  # noqa: N801
    """Calls something before each write, sync, rename and new folder."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        for owner, name in ((files.system, "write"), (os, "fsync"), (Path, "rename"), (Path, "mkdir")):
            self.patch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.step()
            return function(*arguments, **options)

        return wrapped


def _countdown(steps: int, act: Callable[[], None]) -> Callable[[], None]:
    left: Iterator[int] = iter(range(steps - 1, -1, -1))

    def step() -> None:
        if next(left, -1) == 0:
            act()

    return step


def _fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _check_every(source: Checkpoint, tmp_path: Path, share: float) -> None:
    """End a run at some steps, by a full disk and by SIGKILL in a child; a third of them replaces a model."""
    whole = tmp_path / "whole"
    count = _count_steps(source, whole)
    reference = {path.name: path.read_bytes() for path in whole.iterdir()}
    old = {"config.json": b"{}"}
    rng = random.Random(0)
    steps = sorted(rng.sample(range(1, count + 1), max(4, int(count * share))))
    for number, step in enumerate(steps):
        overwrite = number % 3 == 0
        for action in (_fill_disk, _kill):
            place = tmp_path / f"{action.__name__}{step}"
            place.mkdir()
            target = place / "out"
            if overwrite:
                target.mkdir()
                (target / "config.json").write_bytes(old["config.json"])

            def run(target: Path = target, step: int = step, action: Any = action, overwrite: bool = overwrite) -> None:
                with _stepping(_countdown(step, action)):
                    quantize_checkpoint(
                        source,
                        target,
                        Recipe(FORMATS["bnb-nf4"]),
                        Silence(),
                        overwrite=overwrite,
                        shard_bytes=10**6,
                    )

            if action is _fill_disk:
                with pytest.raises(DsvlError, match="the disk is full"):
                    run()
                assert set(os.listdir(place)) <= {"out"}
            else:
                child = os.fork()
                if child == 0:
                    try:
                        run()
                    finally:
                        os._exit(1)
                _, status = os.waitpid(child, 0)
                assert os.WIFSIGNALED(status)
                assert os.WTERMSIG(status) == signal.SIGKILL
            if target.exists():
                stands = {path.name: path.read_bytes() for path in target.iterdir()}
                assert stands in ((old, reference) if overwrite else (reference,))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_some_ends_leave_no_folder_or_a_whole_one(source: Checkpoint, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _check_every(source, tmp_path, share=0.02)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_end_leaves_no_folder_or_a_whole_one(source: Checkpoint, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    _check_every(source, tmp_path, share=1.0)
