"""The prefix store: an answer from it equals that of a fresh model, and wrong data is never loaded."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dsvl_cli.engine.conversation import Conversation, Message, Reply, Stats
from dsvl_cli.engine.generation.prefix_store import PrefixStore, identify
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.images import read_picture
from dsvl_cli.engine.quantization.formats import FORMATS, Recipe
from dsvl_cli.engine.storage.cache_folder import BoundedFolder
from tests.listeners import Ear
from tests.pictures import draw_picture

EXAMPLES = Path(__file__).parents[3] / "examples"
# Hot, so that the smallest change of a distribution's order shows.
VARIED = SamplingParams(max_new_tokens=12, temperature=3.0, seed=5)
GREEDY = SamplingParams(max_new_tokens=12)


@pytest.fixture
def folder(tmp_path: Path) -> BoundedFolder:
    return BoundedFolder(tmp_path / "prefixes", 10**9)


@pytest.fixture
def start(tiny: VisionLanguageModel, folder: BoundedFolder) -> Callable[..., VisionLanguageModel]:
    """Makes the embedded model as a new process has it: with nothing in memory, and what is on disk."""

    def start(identity: str | None = None, ear: Ear | None = None) -> VisionLanguageModel:
        tiny.forget()
        decoder = tiny.network.decoder
        identity = identity or identify(tiny.checkpoint, tiny.plan, None, decoder)
        store = PrefixStore(identity, decoder, ear or Ear(), folder)
        return VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan, store)

    return start


Start = Callable[..., VisionLanguageModel]


def ask(text: str = "Describe this image.", *seeds: int) -> Conversation:
    return Conversation([Message("user", (*(draw_picture(seed) for seed in seeds or (1,)), text))])


def stats(reply: Reply) -> Stats:
    assert reply.stats is not None
    return reply.stats


def answer(model: VisionLanguageModel, talk: Conversation, sampling: SamplingParams = VARIED) -> tuple[Reply, int]:
    """An answer, and how many of its prompt's tokens were not computed."""
    reply = Reply.of(model.stream(talk, sampling))
    return reply, stats(reply).cached_tokens


def fresh(tiny: VisionLanguageModel, talk: Conversation, sampling: SamplingParams = VARIED) -> tuple[int, ...]:
    tiny.forget()
    return Reply.of(tiny.stream(talk, sampling)).token_ids


@pytest.mark.parametrize("sampling", [VARIED, GREEDY], ids=["varied", "greedy"])
@pytest.mark.parametrize("seeds", [(1,), (1, 2), (1, 1, 3)], ids=["one", "two", "three"])
def test_a_question_asked_again_costs_one_token(
    tiny: VisionLanguageModel, start: Start, seeds: tuple[int, ...], sampling: SamplingParams
) -> None:
    talk = ask("What is it?", *seeds)
    expected = fresh(tiny, talk, sampling)
    first, taken = answer(start(), talk, sampling)
    assert (first.token_ids, taken) == (expected, 0)
    again, taken = answer(start(), talk, sampling)
    assert (again.token_ids, taken) == (expected, stats(again).prompt_tokens - 1)


def test_another_question_costs_its_text(
    tiny: VisionLanguageModel, start: Start, folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ask("How many shapes are there?"), ask("Which colour is in the middle?")
    expected = fresh(tiny, other)
    answer(start(), one)
    before = {path for path, _ in folder.list_files()}
    model = start()
    with monkeypatch.context() as patched:
        patched.setattr(model.network, "pixels", lambda _: pytest.fail("the picture is encoded again"))
        reply, taken = answer(model, other)
    assert reply.token_ids == expected
    assert model.image_tokens() < taken < stats(reply).prompt_tokens - 1
    # The picture's part is shared: only the other text is added.
    added = [size for path, size in folder.list_files() if path not in before]
    assert len(added) == 1
    assert added[0] < max(size for _, size in folder.list_files()) / 4
    assert answer(start(), other)[1] == stats(reply).prompt_tokens - 1
    assert answer(start(), one)[1] == len(model.prepare(one)) - 1


def test_a_chat_is_gone_on_with_in_a_later_process(tiny: VisionLanguageModel, start: Start) -> None:
    talk = ask("How many shapes are there?")
    model = start()
    for text in ("What colour?", "Is there a circle?", "And a star?"):
        reply, _ = answer(model, talk)
        talk.messages += [
            Message("assistant", (reply.text,), reply.token_ids, model.fingerprint, reply.finish_reason),
            Message("user", (draw_picture(7), text) if "star" in text else (text,)),
        ]
    expected = fresh(tiny, talk)
    last = model.prepare(Conversation(talk.messages[:-2]))
    reply, taken = answer(start(), talk)
    assert reply.token_ids == expected
    assert taken == len(last) - 1


def test_memory_and_disk_go_together(tiny: VisionLanguageModel, start: Start) -> None:
    talks = [ask(text, *seeds) for seeds in ((1,), (2, 1), (1, 2), (2,)) for text in ("What is it?", "Count them.")]
    expected = [fresh(tiny, talk) for talk in talks]
    for model in (start(), start()):
        for talk, ids in [*zip(talks, expected, strict=True), (talks[0], expected[0])]:
            assert answer(model, talk)[0].token_ids == ids


def test_an_answer_that_is_stopped_harms_nothing(tiny: VisionLanguageModel, start: Start) -> None:
    talk = ask()
    model = start()
    chunks = model.stream(talk, VARIED)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert answer(model, talk)[0].token_ids == fresh(tiny, talk)


def cut(data: bytes) -> bytes:
    return data[:-1000]


def flip(data: bytes) -> bytes:
    return data[:-500] + bytes([data[-500] ^ 4]) + data[-499:]


def blank(data: bytes) -> bytes:
    return data[:-4096] + bytes(4096)


@pytest.mark.parametrize(
    "damage",
    [cut, flip, blank, lambda _: b"", lambda _: b"x" * 5000],
    ids=["cut", "flip", "blank", "empty", "other"],
)
def test_a_damaged_file_is_ignored_and_replaced(
    tiny: VisionLanguageModel, start: Start, folder: BoundedFolder, damage: Callable[[bytes], bytes]
) -> None:
    talk = ask()
    expected = fresh(tiny, talk)
    whole = stats(answer(start(), talk)[0]).prompt_tokens - 1
    files = {path: path.read_bytes() for path, _ in folder.list_files()}
    assert len(files) == 2
    for path, data in files.items():
        path.write_bytes(damage(data))
        reply, taken = answer(start(), talk)
        assert reply.token_ids == expected
        assert taken < whole
        reply, taken = answer(start(), talk)
        assert (reply.token_ids, taken) == (expected, whole)
        assert path.exists()


def test_a_part_in_the_place_of_another_is_noticed(
    tiny: VisionLanguageModel, start: Start, folder: BoundedFolder
) -> None:
    talks = [ask("What is it?", 1), ask("What is it?", 2)]
    expected = [fresh(tiny, talk) for talk in talks]
    largest = []
    for talk in talks:
        before = {path for path, _ in folder.list_files()}
        answer(start(), talk)
        largest.append(max((size, path) for path, size in folder.list_files() if path not in before)[1])
    one, other = (path.read_bytes() for path in largest)
    assert len(one) == len(other)
    assert one != other
    largest[0].write_bytes(other)
    largest[1].write_bytes(one)
    for talk, ids in zip(talks, expected, strict=True):
        reply, taken = answer(start(), talk)
        assert (reply.token_ids, taken) == (ids, 0)


def test_a_full_disk_is_told_once_and_costs_nothing_else(
    tiny: VisionLanguageModel, start: Start, folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [ask("What is it?", seed) for seed in (1, 2, 3)]
    expected = [fresh(tiny, talk) for talk in talks]

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    ear = Ear()
    model = start(ear=ear)
    assert [answer(model, talk)[0].token_ids for talk in talks] == expected
    assert len(ear.notes) == 1
    assert os.strerror(errno.ENOSPC) in ear.notes[0]
    assert list(folder.path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tiny: VisionLanguageModel, start: Start, folder: BoundedFolder) -> None:
    folder.path.write_text("a file")
    ear = Ear()
    assert answer(start(ear=ear), ask())[0].token_ids == fresh(tiny, ask())
    assert len(ear.notes) == 1


def test_files_that_vanish_meanwhile_are_no_harm(
    tiny: VisionLanguageModel, start: Start, folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(tiny, ask())
    answer(start(), ask())
    find = PrefixStore._find_chain

    def find_and_remove(store: PrefixStore, hashes: list[str]) -> list[object]:
        found = find(store, hashes)
        for path, _ in folder.list_files():
            path.unlink()
        return found  # type: ignore[return-value]

    monkeypatch.setattr(PrefixStore, "_find_chain", find_and_remove)
    assert answer(start(), ask())[0].token_ids == expected


def test_what_builds_upon_a_part_goes_before_it(start: Start, folder: BoundedFolder) -> None:
    talk = ask("What is it?", 1, 2)
    answer(start(), talk)
    answer(start(), talk)
    # From the last used to the one that was not used for longest: each part begins where one before it ended.
    names = [path.stem.split("-") for path, _ in reversed(folder.list_files())]
    assert len(names) == 3
    assert all(begin == end for (_, end), (begin, _) in pairwise(names))


def test_only_the_same_model_reads_it(tiny: VisionLanguageModel, start: Start) -> None:
    decoder, plan, checkpoint = tiny.network.decoder, tiny.plan, tiny.checkpoint
    recipe = Recipe(FORMATS["int8"])
    others = [
        identify(replace(checkpoint, fingerprint="other"), plan, None, decoder),
        identify(checkpoint, replace(plan, dtype="bfloat16"), None, decoder),
        identify(checkpoint, replace(plan, device="cuda:0"), None, decoder),
        identify(checkpoint, replace(plan, attention="eager"), None, decoder),
        identify(checkpoint, plan, recipe, decoder),
        identify(checkpoint, plan, replace(recipe, include_head=True), decoder),
        identify(checkpoint, plan, Recipe(FORMATS["int4"]), decoder),
    ]
    assert len(set(others)) == len(others)
    answer(start(), ask())
    for identity in others:
        assert answer(start(identity), ask())[1] == 0
    assert answer(start(), ask())[1] > 0


def test_other_pictures_and_other_preprocessing_are_other_prompts(
    tiny: VisionLanguageModel, start: Start, tmp_path: Path
) -> None:
    answer(start(), ask("What is it?", 1))
    assert answer(start(), ask("What is it?", 2))[1] < tiny.image_tokens()
    (tmp_path / "preprocessor_config.json").write_text("{}")
    identity = identify(replace(tiny.checkpoint, path=tmp_path), tiny.plan, None, tiny.network.decoder)
    assert answer(start(identity), ask("What is it?", 1))[1] == 0


def test_loading_keeps_only_on_request_and_dtypes_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsvl_cli.engine.kernels.native import compiler

    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    options = LoadOptions(model="tiny", dtype="float32", device="cpu")
    assert answer(load_model(options), ask())[1] == 0
    assert not (tmp_path / "prefixes").exists()
    assert answer(load_model(replace(options, cache=True)), ask())[1] == 0
    assert len(list((tmp_path / "prefixes").iterdir())) == 2
    assert answer(load_model(replace(options, cache=True)), ask())[1] > 0
    for other in (replace(options, dtype="bfloat16"), replace(options, quantization="int8"), options):
        assert answer(load_model(replace(other, cache=other is not options)), ask())[1] == 0


def test_processes_share_it(tiny: VisionLanguageModel, tmp_path: Path) -> None:
    picture = str(EXAMPLES / "two-shapes.jpg")
    variables = {**os.environ, "DSVL_CACHE_DIR": str(tmp_path), "DSVL_NATIVE": "0", "OMP_NUM_THREADS": "1"}

    def begin(question: str) -> subprocess.Popen[str]:
        command = ["-m", "dsvl_cli", "describe", picture, "--model", "tiny", "--dtype", "float32", "--cache", "--json"]
        return subprocess.Popen(
            [sys.executable, *command, "-p", question], stdout=subprocess.PIPE, text=True, env=variables
        )

    def end(process: subprocess.Popen[str]) -> tuple[str, int, int]:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        found = json.loads(out)
        return found["text"], found["stats"]["cached_tokens"], found["stats"]["prompt_tokens"]

    def expect(question: str) -> str:
        tiny.forget()
        return Reply.of(tiny.stream(Conversation([Message("user", (read_picture(picture), question))]), GREEDY)).text

    one, other = "Describe this image.", "Which colour is the background?"
    for process in [begin(one), begin(one)]:  # both at once
        assert end(process)[0] == expect(one)
    again, different = begin(one), begin(other)
    text, taken, length = end(again)
    assert (text, taken) == (expect(one), length - 1)
    text, taken, length = end(different)
    assert text == expect(other)
    assert tiny.image_tokens() < taken < length - 1
    assert len(list((tmp_path / "prefixes").iterdir())) == 3  # the picture, and two texts
