"""An object store in place of a disk: a real server on the loopback, with S3's interface.

Needs the packages moto and s3fs, which are no part of the extra `test`; `.ci/run` installs them with `ray`.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.cluster.manifest import Addresses, Manifest
from dsvl_cli.batch.cluster.output import ClusterOutput
from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.reading import Reading, read_pictures
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.sources.remote_files import is_remote, open_filesystem
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.errors import DsvlError
from tests.batch.fakes import png

HAS_STORE = find_spec("moto") is not None and find_spec("s3fs") is not None
needs_store = pytest.mark.skipif(not HAS_STORE, reason="the packages moto and s3fs are not installed")
pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("default")]
SETTINGS = Settings("fake", "fake-1", {"text": "What?"}, None, {"seed": None}, {}, format="jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    yield values["AWS_ENDPOINT_URL"]
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> Any:
    """The file system, with an empty bucket of the test's own; and its name."""
    from fsspec import filesystem

    store = filesystem("s3", use_listings_cache=False)
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    store.mkdir(name)
    return store, name


def fill(store: Any, name: str) -> None:
    for number, path in enumerate(("a.png", "b c.png", "sub/d.png", ".hidden.png", "@eaDir/e.png", "notes.txt")):
        store.pipe_file(f"{name}/photos/{path}", png(number))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(png(10 + number))
            tar.addfile(info, io.BytesIO(png(10 + number)))
    store.pipe_file(f"{name}/shards/0.tar", archive.getvalue())
    table = io.BytesIO()
    pq.write_table(pa.table({"image": [png(20), b"", png(22)]}), table)
    store.pipe_file(f"{name}/shards/t.parquet", table.getvalue())


@needs_store
@pytest.mark.parametrize(
    ("source", "recursive", "expected"),
    [
        ("photos", False, ["photos/a.png", "photos/b c.png"]),
        ("photos/", True, ["photos/a.png", "photos/b c.png", "photos/sub/d.png"]),
        ("photos/a.png", False, ["photos/a.png"]),
        ("photos/*.png", False, ["photos/a.png", "photos/b c.png"]),
        ("shards", False, [f"shards/0.tar::{n}.png" for n in range(3)] + [f"shards/t.parquet::{n}" for n in range(3)]),
        ("shards/0.tar", False, [f"shards/0.tar::{n}.png" for n in range(3)]),
    ],
)
def test_sources_are_found(bucket: Any, source: str, recursive: bool, expected: list[str]) -> None:
    store, name = bucket
    fill(store, name)
    found = [item.id for item in scan([f"s3://{name}/{source}"], options=ScanOptions(recursive, remote=True))]
    assert found == [f"s3://{name}/{path}" for path in expected]


@needs_store
def test_manifest_and_pictures_are_read_from_the_store(bucket: Any) -> None:
    store, name = bucket
    fill(store, name)
    sources = [f"s3://{name}/photos", f"s3://{name}/shards"]
    addresses = Addresses(sources, os.getcwd())
    manifest = Manifest(Place.open(f"s3://{name}/out.dsvl/manifest"))
    manifest.extend(map(addresses.entry, scan(sources, options=ScanOptions(remote=True))))
    again = Manifest(manifest.place)
    again.load()
    assert again.count == 8
    table = pq.read_table(f"{name}/out.dsvl/manifest", filesystem=manifest.place.filesystem)
    store.rm_file(f"{name}/photos/a.png")
    reading = Reading(Access(), None, {"text": "What?"}, ".txt")
    rows = [row for part in read_pictures(table, reading) for row in part.to_pylist()]
    assert [row["pictures"] for row in rows] == [
        [], [png(1)], [png(10)], [png(11)], [png(12)], [png(20)], [], [png(22)],
    ]  # fmt: skip
    assert json.loads(rows[0]["failure"]) == ["ImageError", f"s3://{name}/photos/a.png: no such file"]


@needs_store
def test_an_output_is_kept_in_the_store(bucket: Any) -> None:
    _, name = bucket
    place = Place.open(f"s3://{name}/captions/")
    with ClusterOutput(place, SETTINGS) as output:
        assert output.count_committed() == 0
        assert output.shards() == []
    with ClusterOutput(place, SETTINGS):
        pass
    place.within("a.jsonl").write(b"{}")
    other = Settings("fake", "fake-1", {"text": "Another?"}, None, {"seed": None}, {}, format="jsonl")
    with pytest.raises(DsvlError, match="different settings; now: prompt"), ClusterOutput(place, other):
        pass
    place.within("a.bin").write(b"1")
    assert place.within("a.bin").read() == b"1"
    place.within("a.bin").delete()
    assert place.within("a.bin").read() is None


@needs_store
def test_a_bucket_that_is_not_there_is_one_line(server: str) -> None:
    with pytest.raises(DsvlError, match="no such"):
        list(scan(["s3://nowhere-at-all/photos"], options=ScanOptions(remote=True)))


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="the package gcsfs is installed")
def test_a_missing_package_is_named() -> None:
    with pytest.raises(DsvlError, match="gs:// needs gcsfs, which is not installed") as caught:
        open_filesystem("gs://bucket/photos")
    assert "pip install gcsfs" in str(caught.value.hint)


@pytest.mark.parametrize("address", ["memory://a", "zip://a.zip", "none-of-these://a", "local:///etc/passwd"])
def test_what_is_no_object_store_is_refused(address: str) -> None:
    with pytest.raises(DsvlError):
        open_filesystem(address)


def test_a_whole_bucket_is_no_output() -> None:
    if find_spec("s3fs") is None:
        pytest.skip("the package s3fs is not installed")
    with pytest.raises(DsvlError, match="whole bucket"):
        Place.open("s3://bucket/")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("s3://a/b", True),
        ("GS://a/b", True),
        ("https://a/b", False),
        ("file:///a", False),
        ("a/b", False),
        ("data:,", False),
    ],
)
def test_what_is_in_an_object_store(source: str, expected: bool) -> None:
    assert is_remote(source) is expected


@needs_store
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_a_job_reads_and_writes_the_store(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    from tests.batch.cluster.test_ray import run

    store, name = bucket
    fill(store, name)
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 5, "include_dashboard": False})
    try:
        values: dict[str, Any] = {
            "sources": (f"s3://{name}/photos", f"s3://{name}/shards"), "out": f"s3://{name}/captions",
            "format": "jsonl", "rows_per_shard": 3,
        }  # fmt: skip
        assert run(cluster.address, **values) == "some failed"
        lines = [line for path in store.ls(f"{name}/captions") for line in store.cat_file(path).splitlines()]
        rows = {row["id"]: row for row in map(json.loads, lines)}
        assert len(lines) == len(rows) == 8
        assert [row["id"] for row in rows.values() if row["error"]] == [f"s3://{name}/shards/t.parquet::1"]
        store.pipe_file(f"{name}/photos/new.png", png(99))
        assert run(cluster.address, **values) == "some failed"
        assert sum(len(store.cat_file(path).splitlines()) for path in store.ls(f"{name}/captions")) == 9
    finally:
        cluster.shutdown()
    assert list(tmp_path.iterdir()) == []
