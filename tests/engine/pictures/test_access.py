"""How addresses are shown, and what those that a file names may lead to."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.pictures.access import FOREIGN, Access, address_id, check_inside, shown_address
from dsvl_cli.engine.pictures.fetch import fetch_picture, is_public
from dsvl_cli.errors import ImageError
from tests.engine.pictures.test_fetch import PNG, Server, send, server

__all__ = ["server"]

SECRET = "c4n4ry"
ADDRESSES = {
    f"https://{SECRET}@h/a.png": "https://h/a.png",
    f"https://me:{SECRET}@h:8080/a.png": "https://h:8080/a.png",
    f"HTTPS://me:{SECRET}%40@h/a b.png": "HTTPS://h/a b.png",
    f"https://me:p@{SECRET}@h/a.png": "https://h/a.png",
    f"https://h/a.png?token={SECRET}": "https://h/a.png",
    f"https://h/a.png#{SECRET}": "https://h/a.png",
    f"https://h?token={SECRET}": "https://h",
    f"https://me:se?{SECRET}@h/a.png": "https://[invalid]",
    f"https://me:se/{SECRET}@h/a.png": "https://[invalid]",
    f"https://me:se#{SECRET}@h/a.png": "https://[invalid]",
    f"https:\\\\me:{SECRET}@h\\a.png": "https:\\\\h\\a.png",
    f" ftp://me:{SECRET}@h/a.png": "ftp://h/a.png",
    f"http://me:{SECRET}@[::1]:80/a.png?x": "http://[::1]:80/a.png",
    f"http://[::1/?{SECRET}": "http://[invalid]",
    f"s3://{SECRET}@bucket/a.png": "s3://bucket/a.png",
    "https://h/photos/1@N00/a.png": "https://h/photos/1@N00/a.png",
    "photos/a?b#c@d:e.png": "photos/a?b#c@d:e.png",
    "C:\\photos\\a.png": "C:\\photos\\a.png",
    "-": "-",
}


@pytest.mark.fault("a secret in an address")
@pytest.mark.parametrize(("address", "shown"), ADDRESSES.items())
def test_an_address_is_shown_without_secrets(address: str, shown: str) -> None:
    assert shown_address(address) == shown
    assert SECRET not in shown_address(address)
    assert SECRET not in address_id(address)
    assert shown_address(shown) == shown


@given(st.text(max_size=20), st.text(max_size=20), st.text("ab/?#@:\\[]", max_size=9))
def test_nothing_of_user_and_query_is_left(user: str, query: str, path: str) -> None:
    shown = shown_address(
        f"https://{user.replace('/', '')}{SECRET}:{SECRET}@host/{path.replace('@', '')}?{query}{SECRET}"
    )
    assert SECRET not in shown


def test_addresses_that_differ_in_their_query_are_different_items() -> None:
    one, other = (address_id(f"https://h/a.png?id={number}") for number in (1, 2))
    assert one != other
    assert one == address_id("https://h/a.png?id=1#top")
    assert one == address_id("https://me:secret@h/a.png?id=1")
    assert address_id("https://me:secret@h/a.png") == address_id("https://h/a.png") == "https://h/a.png"


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2001:0:53aa:64c:0:0:80ff:fffe",
    "2001:db8::1", "2001:20::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1",
    "100::1", "5f00::1", "3fff::1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.fault("an address of this machine or its network")
@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    assert is_public(address)


# The loopback in other words; {port} is the server's.
SPELLINGS = [
    "127.0.0.1:{port}", "127.1:{port}", "127.0.1:{port}", "2130706433:{port}", "0x7f000001:{port}", "0x7f.1:{port}",
    "0177.0.0.1:{port}", "017700000001:{port}", "0:{port}", "0.0.0.0:{port}", "localhost:{port}", "localhost.:{port}",
    "LOCALHOST:{port}", "[::1]:{port}", "[::]:{port}", "[::ffff:127.0.0.1]:{port}", "[::ffff:7f00:1]:{port}",
    "[0:0:0:0:0:ffff:7f00:0001]:{port}", "[64:ff9b::127.0.0.1]:{port}", "[64:ff9b::7f00:1]:{port}", "127.0.0.1.:{port}",
    "１２７.0.0.1:{port}", "①②⑦.0.0.1:{port}", "127。0。0。1:{port}", "user@127.0.0.1:{port}", "me:pw@localhost:{port}",
    "h.example@127.0.0.1:{port}", "127.0.0.1:0{port}", "%31%32%37.0.0.1:{port}",
]  # fmt: skip


@pytest.mark.fault("an address of this machine or its network")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_the_loopback_is_fetched(server: Server, spelling: str) -> None:
    url = f"http://{spelling.format(port=server.host.rpartition(':')[2])}/a.png"
    with pytest.raises(ImageError):
        fetch_picture(url, FOREIGN)
    assert server.requests == []


def test_they_are_fetched_if_the_user_allows_it(server: Server) -> None:
    assert fetch_picture(server.url("/a.png"), Access(private=True))[0] == PNG
    with pytest.raises(ImageError, match="on this machine or its network") as caught:
        fetch_picture(server.url("/a.png"), FOREIGN)
    assert "--allow-private-addresses" in caught.value.message


class Names:
    """Names that resolve to what a test wants: one address after the other."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = int(server.host.rpartition(":")[2])
        self.answers: dict[str, list[str]] = {}
        self.connected: list[str] = []
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)
        connect = socket.socket.connect

        def count(opened: socket.socket, address: Any) -> None:
            self.connected.append(address[0])
            # Public addresses of the tests are played by the server on the loopback.
            connect(opened, ("127.0.0.1", self.port) if is_public(address[0]) else address)

        monkeypatch.setattr(socket.socket, "connect", count)

    def resolve(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in self.answers:
            return self._resolve(host, port, *args, **options)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found.split()]


@pytest.fixture
def names(server: Server, monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setenv("no_proxy", "*")
    return Names(server, monkeypatch)


@pytest.mark.fault("a name that leads to this machine or its network")
def test_the_connection_goes_to_the_address_that_was_checked(server: Server, names: Names) -> None:
    names.answers["good.example"] = ["93.184.216.34", "127.0.0.1"]  # resolved again, it would be the loopback
    assert fetch_picture("http://good.example/a.png", FOREIGN)[0] == PNG
    assert names.connected == ["93.184.216.34"]
    assert server.requests[0][1]["host"] == "good.example"


@pytest.mark.fault("a name that leads to this machine or its network")
@pytest.mark.parametrize("found", ["127.0.0.1", "93.184.216.34 127.0.0.1", "169.254.169.254", "10.1.2.3"])
def test_a_name_of_which_one_address_is_private_is_refused(server: Server, names: Names, found: str) -> None:
    names.answers["evil.example"] = [found]
    with pytest.raises(ImageError, match=r"leads to evil\.example, on this machine or its network"):
        fetch_picture("http://evil.example/a.png", FOREIGN)
    assert names.connected == []


@pytest.mark.fault("a redirect to this machine or its network")
@pytest.mark.parametrize("access", [FOREIGN, FOREIGN.as_typed()], ids=["foreign", "typed"])
def test_a_public_host_never_leads_to_a_private_one(server: Server, names: Names, access: Access) -> None:
    names.answers["good.example"] = ["93.184.216.34"]
    for target in (server.url("/a.png"), f"http://2130706433:{names.port}/a.png", "http://10.0.0.1/reboot"):
        server.answers["/r"] = lambda handler, target=target: send(handler, b"", status=302, Location=target)  # type: ignore[misc]
        with pytest.raises(ImageError, match="on this machine or its network"):
            fetch_picture("http://good.example/r", access)
    assert {path for path, _ in server.requests} == {"/r"}
    assert set(names.connected) == {"93.184.216.34"}


def test_a_private_host_that_the_user_named_may_lead_to_another(server: Server) -> None:
    assert fetch_picture(server.redirects(2), FOREIGN.as_typed())[0] == PNG


@pytest.mark.fault("an address of this machine or its network")
def test_a_proxy_is_not_asked_for_them(server: Server, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url(""))
    names.answers["good.example"], names.answers["evil.example"] = ["93.184.216.34"], ["127.0.0.1"]
    for path in ("http://good.example/b.png", "http://unknown.invalid/b.png"):
        server.answers[path] = lambda handler: send(handler, PNG)
        assert fetch_picture(path, FOREIGN)[0] == PNG
    for host in ("127.0.0.1", "evil.example", "0x7f.1", "localhost", "[::1]"):
        with pytest.raises(ImageError, match="on this machine or its network"):
            fetch_picture(f"http://{host}/b.png", FOREIGN)
    assert len(server.requests) == 2


@pytest.mark.fault("a path out of its folder")
@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/hostname", "a/../../x.png", "link/x.png", "\\\\host\\share\\x.png", "a\0b"]
)
def test_a_path_that_a_file_names_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "lists", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    if os.name != "nt":
        (folder / "link").symlink_to(other)
    path = os.path.join(folder, name)
    if "\\" in name and os.name != "nt":
        check_inside(path, str(folder), FOREIGN)  # an ordinary name here
        return
    with pytest.raises(ImageError, match="outside the folder"):
        check_inside(path, str(folder), FOREIGN)
    check_inside(path, str(folder), Access(outside=True))


def test_paths_within_the_folder_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, folder in (("a.png", ""), ("b/../a.png", ""), (str(tmp_path / "b" / "a.png"), ""), ("b/c/a.png", "b")):
        check_inside(os.path.join(folder, path) if not path.startswith("b/c") else path, folder, FOREIGN)
