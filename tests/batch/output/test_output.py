"""What is kept of rows: goes on, refuses, does again, and becomes tables and texts."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.check import CHANGED, GONE, find_stale
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.formats import Existing, Format
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.output import KeptOutput, journal_path, settings_path_of
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.output.sidecars import Sidecars
from dsvl_cli.batch.output.sinks import TABLE_WRITERS, JournalOnly, Table
from dsvl_cli.batch.output.tables import write_csv, write_parquet
from dsvl_cli.batch.quality import RETRY_SAMPLING
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.storage.files import NewFile
from dsvl_cli.errors import DsvlError
from tests.batch.fakes import item, png

SETTINGS = Settings(
    "tiny", "f1", {ONLY: "What?"}, None, {"temperature": 0.0, "seed": None, "stop": ()}, {"dtype": "auto"}
)


def row_of(name: str, text: str = "A cat.", path: str | None = None, suspicion: str | None = None) -> Row:
    answers = {ONLY: Answer(text, "stop", 9, 3, 0.5, suspicion)}
    return Row(name, path or name, {ONLY: "What?"}, answers, "tiny", 8, 6, "ab")


def error_of(name: str) -> Row:
    return Row(name, name, {ONLY: "What?"}, error=Failure("ImageError", f"{name}: damaged"))


def opened(path: Path, settings: Settings = SETTINGS, **options: bool) -> KeptOutput:
    return KeptOutput(path, "jsonl", JournalOnly(), settings, **options)


def write(path: Path, *rows: Row, **options: bool) -> None:
    with opened(path, SETTINGS, **options) as output:
        for row in rows:
            output.write(row)
        output.finish()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_in_the_file_as_soon_as_they_are_written(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    with opened(out) as output:
        output.write(row_of("a"))
        assert [line["id"] for line in lines(out)] == ["a"]
        output.write(error_of("b"))
        assert [line["status"] for line in lines(out)] == ["answered", "error"]


def test_what_has_its_row_is_not_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, row_of("000.png"), error_of("001.png"), row_of("002.png", suspicion="empty"))
    with opened(out) as output:
        assert [output.select(item(number)) for number in range(3)] == [None] * 3
        assert output.select(item(3)) == item(3)
    with opened(out, retry_errors=True, retry_suspect=True) as output:
        assert output.select(item(0)) is None
        assert output.select(item(1)) == item(1)
        again = output.select(item(2))
        assert again is not None
        assert again.sampling == RETRY_SAMPLING


def test_samples_are_done_again_at_the_temperature_that_was_asked_for(tmp_path: Path) -> None:
    """Otherwise how far they disagree would mean something else than in other rows."""
    settings = replace(SETTINGS, samples=3)
    with opened(tmp_path / "out.jsonl", settings) as output:
        output.write(row_of("000.png", suspicion="empty"))
        output.finish()
    with opened(tmp_path / "out.jsonl", settings=settings, retry_suspect=True) as output:
        again = output.select(item(0))
    assert again is not None
    assert again.sampling
    assert not again.sampling.keys() & {"temperature", "top_p"}


def test_a_row_that_is_done_again_replaces_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, error_of("a"), row_of("b", suspicion="empty"), row_of("c"))
    write(out, row_of("a", "A dog."), error_of("b"))
    found = {line["id"]: line for line in lines(out)}
    assert len(lines(out)) == 3
    assert found["a"]["text"] == "A dog."
    assert found["b"]["status"] == "suspect"  # more than no answer at all


def test_two_rows_of_one_item_after_a_kill_are_one_in_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, error_of("a"), row_of("b"))
    with out.open("a") as file:
        file.write(row_of("a", "A dog.").to_line().decode())
    write(out)
    assert [(line["id"], line["text"]) for line in lines(out)] == [("b", "A cat."), ("a", "A dog.")]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(SETTINGS, prompts={ONLY: "Who?"}), "prompt 'Who?' (was 'What?')"),
        (replace(SETTINGS, model="1.3b", fingerprint="f2"), "model '1.3b' (was 'tiny')"),
        (replace(SETTINGS, fingerprint="f2"), "the files of model tiny changed"),
        (replace(SETTINGS, system=""), "system '' (was none)"),
        (replace(SETTINGS, loading={"dtype": "float32"}), "dtype 'float32' (was 'auto')"),
        (replace(SETTINGS, sampling={**SETTINGS.sampling, "temperature": 0.5}), "temperature 0.5 (was 0.0)"),
        (replace(SETTINGS, prompts={"a": "What?"}), "question a 'What?' (was none)"),
    ],
)
def test_other_settings_are_refused_unless_it_begins_anew(tmp_path: Path, settings: Settings, said: str) -> None:
    out = tmp_path / "out.jsonl"
    write(out, row_of("a"))
    before = out.read_bytes()
    with pytest.raises(DsvlError) as caught, opened(out, settings):
        pass
    assert said in caught.value.message
    assert out.read_bytes() == before
    with opened(out, settings, overwrite=True) as output:
        assert output.select(item(0)) is not None
        assert out.read_bytes() == b""
    with pytest.raises(DsvlError), opened(out, settings):  # nothing came of it, so the old rows are still there
        pass
    assert out.read_bytes() == before
    with opened(out, settings, overwrite=True) as output:
        output.write(row_of("b"))
    with opened(out, settings) as output:
        assert [row.id for row in output.journal.rows()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        out.name,
        f"{out.name}.settings.json",
    ]


def test_a_seed_that_was_drawn_is_drawn_once(tmp_path: Path) -> None:
    def drawn(seed: int) -> Settings:
        return replace(SETTINGS, sampling={"temperature": 1.0, "seed": seed}, seed_drawn=True)

    out = tmp_path / "out.jsonl"
    with opened(out, drawn(1)) as output:
        output.write(row_of("a"))
    with opened(out, drawn(2)) as output:
        assert output.settings.sampling["seed"] == 1


def test_a_seed_that_nobody_asked_for_is_not_named(tmp_path: Path) -> None:
    asked = replace(SETTINGS, sampling={"temperature": 1.0, "seed": 1})
    drawn = replace(SETTINGS, sampling={"temperature": 1.0, "seed": 98765}, seed_drawn=True)
    assert drawn.differences(asked) == ["seed none (was 1)"]
    assert asked.differences(drawn) == ["seed 1 (was none)"]
    assert "temperature 0.0 (was 1.0)" in SETTINGS.differences(drawn)
    assert "seed" not in " ".join(SETTINGS.differences(drawn))


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.write_text("mine\n")
    form: Format = "csv" if name.endswith("csv") else "jsonl"
    with pytest.raises(DsvlError, match="not from `dsvl batch`"), KeptOutput(out, form, JournalOnly(), SETTINGS):
        pass
    assert out.read_text() == "mine\n"


def test_a_broken_line_among_others_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, row_of("a"), row_of("b"))
    broken = out.read_bytes().replace(b'{"id": "a"', b'{"id": a"')
    out.write_bytes(broken)
    with pytest.raises(DsvlError, match="line 1 is not a row"), opened(out):
        pass
    assert out.read_bytes() == broken


def leave(target: Path) -> Path:
    """What a killed run leaves of a file."""
    file = NewFile(target)
    file.close()
    return file.path


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_a_killed_run_left_goes_and_what_another_is_writing_stays(tmp_path: Path, form: Format) -> None:
    out = tmp_path / f"out.{form}"
    for target in (out, journal_path(out, form), settings_path_of(out)):
        leave(target)
    other = leave(tmp_path / "other.csv")
    KeptOutput(out, form, JournalOnly(), SETTINGS).peek()
    assert len(list(tmp_path.glob("*.dsvl-new"))) == 4
    with KeptOutput(out, form, JournalOnly(), SETTINGS):
        assert list(tmp_path.glob("*.dsvl-new")) == [other]


def test_only_asking_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    opened(out).peek()
    assert list(tmp_path.iterdir()) == []
    write(out, row_of("000.png"))
    with out.open("a") as file:
        file.write('{"id": "torn')
    before = {path: path.read_bytes() for path in out.parent.iterdir()}
    output = opened(out)
    output.peek()
    assert (output.select(item(0)), output.select(item(1))) == (None, item(1))
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == before


ODD = [
    row_of("p/10.png", "=HYPERLINK(1)"),
    row_of("p/2.png", '+1\n-2, "x"'),
    row_of("p/\udcff.png", "ünï \u2028 🐈"),
    row_of("=cmd.png", "@x"),
    error_of("p/3.png"),
]


def test_a_csv_is_in_order_and_holds_no_formulas(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_csv(path, ODD, [ONLY])
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["text"] for row in read] == ["'=HYPERLINK(1)", '\'+1\n-2, "x"', "ünï \u2028 🐈", "'@x", ""]
    assert [row["path"] for row in read][2:] == ["p/\\xff.png", "'=cmd.png", "p/3.png"]
    assert read[4]["error_type"] == "ImageError"
    assert not any(cell.startswith(tuple("=+-@")) for row in read for name, cell in row.items() if name != "id")


@pytest.mark.parametrize(
    "id_", ["=1+1.png", "a;=1+1.png", 'say "x", y.png', "-x.png", "@eaDir/a.png", "line\nfeed.png", "'a", " b"]
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_id_is_never_altered_so_that_tables_can_be_joined(tmp_path: Path, id_: str, form: Format) -> None:
    out = tmp_path / f"out.{form}"
    rows = [row_of(id_, "=1"), row_of("b.png")]
    TABLE_WRITERS[form](out, rows, [ONLY])
    mine = pd.DataFrame({"id": [id_, "b.png"], "label": ["one", "two"]})
    answers = pd.read_csv(out, dtype=str) if form == "csv" else pd.read_parquet(out)
    joined = answers.merge(mine, on="id")
    assert list(joined["label"]) == ["one", "two"]


@pytest.mark.parametrize("id_", ["a;=1+1.png", 'a";=1+1;".png', "a\tb;@x.png"])
def test_no_formula_begins_within_an_id(tmp_path: Path, id_: str) -> None:
    write_csv(tmp_path / "out.csv", [row_of(id_)], [ONLY])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter=";"))  # as where decimals have commas
    assert rows[1][0].startswith(id_)
    assert not any(cell.lstrip(' "').startswith(("=", "@")) for cell in rows[1])


@pytest.mark.parametrize("mark", [False, True])
def test_a_table_for_excel_begins_with_a_mark(tmp_path: Path, mark: bool) -> None:
    out = tmp_path / "out.csv"

    def write_table(mark: bool, *rows: Row) -> bytes:
        table = Table(out, partial(write_csv, mark=mark), (ONLY,), mark=mark)
        with KeptOutput(out, "csv", table, SETTINGS) as output:
            for row in rows:
                output.write(row)
            output.finish()
        return out.read_bytes()

    assert write_table(mark, row_of("ü.png")).startswith(b"\xef\xbb\xbf") == mark
    assert list(pd.read_csv(out)["id"]) == ["ü.png"]
    assert write_table(not mark).startswith(b"\xef\xbb\xbf") != mark  # nothing to do but this


@pytest.mark.fault("a formula in a table")
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("formula", ["=1+1", "@SUM(A1)", "+HYPERLINK(1)", "-2+cmd|' /C calc'!A0", "＝1+1", "- a (b)"])
@pytest.mark.parametrize("before", ["", "It is; ", "one\t", "a\nb;c\n", " ", '"', "\ufeff"])
def test_no_spreadsheet_finds_a_formula(tmp_path: Path, separator: str, formula: str, before: str) -> None:
    write_csv(tmp_path / "out.csv", [row_of("p/1.png", before + formula)], [ONLY])
    text = (tmp_path / "out.csv").read_text("utf-8")
    if separator == ",":
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    else:  # quotes within a line have no effect, and end no line
        cells = [cell for line in text.splitlines() for cell in line.split(separator)]
    for cell in cells:
        assert not cell.lstrip(' "\ufeff').startswith(tuple("=+-@＝＋－＠"))


def test_a_list_in_an_answer_stays_as_it_is(tmp_path: Path) -> None:
    answer = "There are:\n- a cat; a dog\n- 2 birds\nTotal: 1 + 1 = 2; e-mail a@b"
    write_csv(tmp_path / "out.csv", [row_of("p/1.png", answer)], [ONLY])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["text"] == answer


def test_a_parquet_file_is_read_by_pyarrow_and_pandas(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_parquet(path, ODD, [ONLY])
    table = pq.read_table(path)
    assert table["text"].to_pylist() == ["=HYPERLINK(1)", '+1\n-2, "x"', "ünï \u2028 🐈", "@x", None]
    assert str(table.schema.field("tokens").type) == "int64"
    frame = pd.read_parquet(path)
    assert list(frame["path"]) == ["p/10.png", "p/2.png", "p/\\xff.png", "=cmd.png", "p/3.png"]
    assert frame["width"].sum() == 32


def test_a_number_that_a_parquet_column_cannot_hold_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    kinds: dict[str, list[int]] = {"integer": [3, 2**63, -(10**30)], "number": [3, 10**400, 2**63]}
    for kind, values in kinds.items():
        rows = [Row("a", "a", {ONLY: "?"}, {ONLY: Answer(str(value), "stop", value=value)}) for value in values]
        write_parquet(path, rows, [ONLY], constraints={ONLY: JsonSchema.of({"type": kind})})
        table = pq.read_table(path)
        assert table["value"].to_pylist() == ([3, None, None] if kind == "integer" else [3.0, None, 2.0**63])
        assert table["text"].to_pylist() == list(map(str, values))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_has_the_order_of_names_and_a_column_for_each_question(tmp_path: Path, form: Format) -> None:
    out = tmp_path / f"out.{form}"
    questions = {"colour": "Which colour?", "kind": "Which kind?"}
    settings = replace(SETTINGS, prompts=questions)
    output = KeptOutput(out, form, Table(out, TABLE_WRITERS[form], tuple(questions)), settings)
    with output:
        for number in (10, 9, 1):
            said = {"colour": Answer("Red.", "stop", 5, 1, 0.5), "kind": Answer(f"No. {number}", "stop", 6, 2, 0.25)}
            output.write(Row(f"{number}.png", f"{number}.png", questions, said, "tiny"))
        assert not out.exists()
        output.finish()
    frame = pd.read_csv(out) if form == "csv" else pd.read_parquet(out)
    assert list(frame["path"]) == ["1.png", "9.png", "10.png"]
    assert list(frame["kind"]) == ["No. 1", "No. 9", "No. 10"]
    assert list(frame["colour"]) == ["Red."] * 3
    assert (frame["tokens"][0], frame["seconds"][0]) == (3, 0.75)


def sidecars(out: Path, existing: Existing, items: list[Item], text: str = "New.", **options: bool) -> list[str]:
    """Run over items; returns the ids of those that were to be done."""
    done = []
    with KeptOutput(out, "txt", Sidecars(out, existing), SETTINGS, **options) as output:
        for each in items:
            if output.select(each) is not None:
                done.append(each.id)
                output.write(row_of(each.id, text, each.path))
        output.finish()
    return done


def photos(folder: Path, *names: str) -> list[Item]:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    return list(scan([str(folder)], options=ScanOptions(recursive=True)))


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.txt")}


def test_texts_lie_beside_their_pictures_or_in_a_mirrored_tree(tmp_path: Path) -> None:
    items = photos(tmp_path / "photos", "a.png", "sub/b.png")
    sidecars(tmp_path / "photos", "skip", items)
    assert texts(tmp_path / "photos") == {"a.txt": "New.\n", "sub/b.txt": "New.\n"}
    sidecars(tmp_path / "texts", "skip", items)
    assert texts(tmp_path / "texts") == {"a.txt": "New.\n", "sub/b.txt": "New.\n"}


def test_what_a_killed_run_left_of_a_text_goes(tmp_path: Path) -> None:
    items = photos(tmp_path / "photos", "a.png", "sub/b.png")
    sidecars(tmp_path / "photos", "skip", items)
    leave(tmp_path / "photos/sub/b.txt")  # of the last row
    other = leave(tmp_path / "photos/c.txt")
    assert sidecars(tmp_path / "photos", "skip", items) == []
    assert list(tmp_path.rglob("*.dsvl-new")) == [other]
    leave(tmp_path / "photos/a.txt")
    assert len(sidecars(tmp_path / "photos", "overwrite", items, overwrite=True)) == 2
    assert list(tmp_path.rglob("*.dsvl-new")) == [other]


def test_two_pictures_never_share_a_text(tmp_path: Path) -> None:
    items = photos(tmp_path / "photos", "a.jpg", "a.png", "a.webp")
    assert len(sidecars(tmp_path / "photos", "skip", items)) == 3
    assert sorted(texts(tmp_path / "photos")) == ["a.png.txt", "a.txt", "a.webp.txt"]
    assert sidecars(tmp_path / "photos", "skip", items) == []


@pytest.mark.parametrize(
    ("existing", "expected"),
    [("skip", "Old.\n"), ("overwrite", "New.\n"), ("append", "Old.\nNew.\n"), ("prepend", "New.\nOld.\n")],
)
def test_what_becomes_of_a_text_that_is_there(tmp_path: Path, existing: Existing, expected: str) -> None:
    items = photos(tmp_path / "photos", "a.png", "b.png")
    (tmp_path / "photos/a.txt").write_text("Old.\n")
    done = sidecars(tmp_path / "photos", existing, items)
    assert len(done) == (1 if existing == "skip" else 2)
    assert texts(tmp_path / "photos") == {"a.txt": expected, "b.txt": "New.\n"}
    assert sidecars(tmp_path / "photos", existing, items) == []
    assert texts(tmp_path / "photos") == {"a.txt": expected, "b.txt": "New.\n"}


def test_nothing_leads_out_of_the_folder_and_no_name_is_too_long(tmp_path: Path) -> None:
    out = tmp_path / "texts"
    paths = ["../../up.png", "/etc/absolute.png", "shard.tar::../x/y.png", "t.parquet::12", "n" * 255, "a\0b.png"]
    sidecars(out, "skip", [Item(path, path, list) for path in paths])
    assert len(texts(out)) == len(paths)
    assert {"up.txt", "absolute.txt", "shard.tar/x/y.txt", "t.parquet/12.txt", "ab.txt"} < set(texts(out))
    assert not list(tmp_path.glob("*.txt"))


def journal_of(out: Path, *fields: dict[str, object]) -> None:
    """Plant the journal of an earlier run, as a stranger may who sends a folder of pictures."""
    journal = journal_path(out, "txt")
    journal.write_text("".join(json.dumps({**row_of("x").to_fields(), **each}) + "\n" for each in fields))
    replace(SETTINGS, format="txt", base="..").write(settings_path_of(out))


@pytest.mark.fault("planted journals")
@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
@pytest.mark.parametrize("status", ["answered", "suspect"])
def test_a_planted_journal_writes_nothing_but_texts_of_pictures(
    tmp_path: Path, existing: Existing, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "photos"
    photos(out, "a.png")
    (tmp_path / "victim.txt").write_text("precious")
    (out / "notes.txt").write_text("mine")
    (out / "inside").symlink_to(tmp_path)
    places = [
        str(tmp_path / "victim.txt"), "../victim.txt", "x/../../victim.txt", "inside/victim.txt", "notes.txt", "a.png",
        "new.txt", "inside/new.txt", "../new.txt", str(tmp_path / "new.txt"), "", ".", "\0", "x/" * 3000 + "a.txt",
    ]  # fmt: skip
    suspicion = "empty" if status == "suspect" else None
    for place in places:
        fields = {"id": "photos/a.png", "path": "photos/a.png", "sidecar": place, "status": status}
        journal_of(out, {**fields, "suspicion": suspicion, "text": "planted"})
        items = list(scan(["photos"]))
        sidecars(out, existing, items, "New.", retry_suspect=True)
        assert (tmp_path / "victim.txt").read_text() == "precious", place
        assert (out / "notes.txt").read_text() == "mine", place
        assert (out / "a.png").read_bytes() == png(0), place
        assert not (tmp_path / "new.txt").exists(), place
        assert not (out / "new.txt").exists(), place


@pytest.mark.fault("planted journals")
def test_a_journal_s_places_are_plain(tmp_path: Path) -> None:
    texts = Sidecars(tmp_path, "skip")
    for place in (
        "/etc/a.txt",
        "../a.txt",
        "x/../../a.txt",
        "./a.txt",
        "x//a.txt",
        "a.png",
        "",
        "\0.txt",
        5,
        None,
        ["a"],
    ):
        texts.load({"id": "a.png", "sidecar": place})
    assert texts._stored == {}
    texts.load({"id": "a.png", "sidecar": os.path.join("x", "a.txt")})
    assert texts._stored == {"a.png": os.path.join("x", "a.txt")}


@pytest.mark.fault("planted links and files")
def test_no_text_leaves_the_folder_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.txt").write_text("precious")
    items = photos(tmp_path / "photos", "sub/x.png", "y.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "texts/y.txt").symlink_to(tmp_path / "elsewhere/x.txt")
    sidecars(tmp_path / "texts", "append", items)
    assert (tmp_path / "elsewhere/x.txt").read_text() == "precious"
    assert os.listdir(tmp_path / "elsewhere") == ["x.txt"]
    assert (tmp_path / "texts/y.txt").read_text() == "New.\n"
    assert (tmp_path / "texts/x.txt").read_text() == "New.\n"


def test_a_text_that_a_kill_left_out_is_written_the_next_time(tmp_path: Path) -> None:
    items = photos(tmp_path / "photos", "a.png", "sub/b.png")
    for out in (tmp_path / "photos", tmp_path / "texts"):
        sidecars(out, "skip", items)
        (out / "sub/b.txt").unlink()
        assert sidecars(out, "skip", items) == []
        assert texts(out) == {"a.txt": "New.\n", "sub/b.txt": "New.\n"}


def test_the_rows_of_pictures_that_changed_or_are_gone_are_stale(tmp_path: Path) -> None:
    from dsvl_cli.batch.captioner import hash_pictures

    items = photos(tmp_path, "changed.png", "gone.png", "same.png")
    rows = [replace(row_of(each.id), sha256=hash_pictures(each.read())) for each in items]
    assert list(find_stale(rows)) == []
    (tmp_path / "changed.png").write_bytes(png(99))
    (tmp_path / "gone.png").unlink()
    assert [(Path(row.path).name, why) for row, why in find_stale(rows)] == [
        ("changed.png", CHANGED), ("gone.png", GONE),
    ]  # fmt: skip


@pytest.mark.parametrize("row", [*ODD, row_of("x", suspicion="empty"), row_of("y", "")])
def test_a_row_is_read_back_as_it_was(row: Row) -> None:
    line = row.to_line()
    assert line.index(b"\n") == len(line) - 1
    line.decode()
    assert Row.from_json(line) == row


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"id": 1}', '{"id": "a", "status": "answered"}', "x"])
def test_what_is_no_row_is_not_read_as_one(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Row.from_json(line)


def test_a_journal_reads_rows_by_name_and_counts_them(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        for row in (row_of("10"), error_of("9"), row_of("1", suspicion="empty")):
            journal.append(row)
        assert [row.id for row in journal.rows()] == ["1", "9", "10"]
        assert [journal.count(status) for status in ("answered", "suspect", "error")] == [1, 1, 1]
        assert (len(journal), journal.status("9"), journal.status("8")) == (3, "error", None)
