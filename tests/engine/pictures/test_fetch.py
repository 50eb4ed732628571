from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from dsvl_cli.engine.pictures import fetch
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.engine.pictures.images import decode, read_picture
from dsvl_cli.errors import ImageError
from tests.engine.drawn_pictures import SIZE, encoded, scene

PNG = encoded(scene(), "PNG")
TYPED = Access().as_typed()
DRIP_SECONDS = 0.05
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    answers: dict[str, Answer]
    stop: threading.Event
    requests: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        answer = self.answers.get(self.path, not_found)
        try:
            answer(self)
        except OSError:  # the client went away
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Server:
    """An HTTP server on the loopback whose answers a test names by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {"/a.png": lambda handler: send(handler, PNG)}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()
        members = {"answers": self.answers, "stop": self.stop, "requests": self.requests}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("TestHandler", (Handler,), members))
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}{self.host}{path}"

    def redirects(self, count: int, end: str = "/a.png", status: int = 302) -> str:
        """The address of the first of `count` redirects."""
        for index in range(count):
            target = f"/r{index + 1}" if index + 1 < count else end
            self.answers[f"/r{index}"] = lambda handler, target=target: send(  # type: ignore[misc]
                handler, b"x" * 100, status=status, kind="text/html", Location=target
            )
        return self.url("/r0")

    def close(self) -> None:
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(handler: Handler, body: bytes, status: int = 200, kind: str | None = "image/png", **headers: str) -> None:
    handler.send_response(status)
    fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
    if kind is not None:
        fields["Content-Type"] = kind
    for name, text in fields.items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(body)


def not_found(handler: Handler) -> None:
    send(handler, b"", status=404, kind="text/html")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def fetch_picture(url: str, access: Access = TYPED) -> tuple[bytes, str]:
    return fetch.fetch_picture(url, access)


def refusal(url: str, access: Access = TYPED) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetch_picture(url, access)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_picture_is_fetched_and_read(server: Server) -> None:
    picture = read_picture(server.url("/a.png"))
    assert (picture.name, picture.data) == (server.url("/a.png"), PNG)
    assert decode(picture).size == SIZE


def test_what_is_asked_for(server: Server) -> None:
    fetch_picture(server.url("/a.png"))
    _, headers = server.requests[0]
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers
    assert "authorization" not in headers


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/jpeg", "binary/octet-stream", None])
def test_the_kind_may_be_unknown_or_wrong(server: Server, kind: str | None) -> None:
    server.answers["/x"] = lambda handler: send(handler, PNG, kind=kind)
    assert fetch_picture(server.url("/x")) == (PNG, server.url("/x"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_redirects_are_followed(server: Server, status: int) -> None:
    assert fetch_picture(server.redirects(5, status=status))[0] == PNG


def test_six_are_not(server: Server) -> None:
    assert "more than 5 redirects" in refusal(server.redirects(6)).message
    assert "/a.png" not in [path for path, _ in server.requests]


def test_a_circle_of_redirects_ends(server: Server) -> None:
    assert "more than 5 redirects" in refusal(server.redirects(2, end="/r0")).message
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://127.0.0.1/a.png", "data:image/png,x", "https:///x", ""]
)
def test_a_redirect_leads_only_to_http(server: Server, target: str) -> None:
    assert "does not lead to an http(s) URL" in refusal(server.redirects(1, end=target)).message


def test_a_redirect_never_leaves_https() -> None:
    secure = urlsplit("https://example.org/a/b.png")
    with pytest.raises(ImageError, match="from https to http"):
        fetch._redirected(secure, "http://example.org/b.png", "name")
    assert fetch._redirected(secure, "/c.png", "name").geturl() == "https://example.org/c.png"
    assert fetch._redirected(urlsplit("http://example.org/"), "https://u:p@example.net", "name").scheme == "https"


def test_the_body_of_a_redirect_is_not_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(handler: Handler) -> None:
        send(handler, b"", status=302, Location="/a.png", Content_Length=str(2**40))
        while not server.stop.is_set():
            handler.wfile.write(b"x" * 65536)

    server.answers["/endless"] = endless
    assert fetch_picture(server.url("/endless"))[0] == PNG


def test_a_password_goes_to_its_host_and_nowhere_else(server: Server) -> None:
    login = "me:s3cret%40@"
    _, name = fetch_picture(server.url("/a.png", login))
    assert name == server.url("/a.png")
    expected = "Basic " + base64.b64encode(b"me:s3cret@").decode()
    assert server.requests[-1][1]["authorization"] == expected
    server.redirects(1)
    fetch_picture(server.url("/r0", login))
    assert [headers.get("authorization") for _, headers in server.requests[-2:]] == [expected, None]
    error = refusal(server.url("/none", login))
    assert "s3cret" not in f"{error.message} {error.hint}"


def test_an_address_with_any_letters(server: Server) -> None:
    server.answers["/%C3%A9t%C3%A9%20%2F.png?q=%C3%A9&r=1"] = lambda handler: send(handler, PNG)
    url = server.url("/été %2F.png?q=é&r=1#part")
    assert fetch_picture(url) == (PNG, server.url("/été %2F.png"))


@pytest.mark.parametrize(
    ("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503 Service"), (599, "answered 599")]
)
def test_http_errors_are_told(server: Server, status: int, words: str) -> None:
    server.answers["/x"] = lambda handler: send(handler, b"<html>", status=status, kind="text/html")
    error = refusal(server.url("/x"))
    assert words in error.message
    assert server.url("/x") in error.message


def test_a_web_page_is_not_a_picture(server: Server) -> None:
    server.answers["/x"] = lambda handler: send(handler, b"<html>", kind="text/html; charset=utf-8")
    assert "a web page, not a picture" in refusal(server.url("/x")).message
    server.answers["/x"] = lambda handler: send(handler, b"{}", kind="application/json")
    assert "application/json" in refusal(server.url("/x")).message


def test_a_large_picture_is_refused_by_its_head(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 2**20)
    server.answers["/x"] = lambda handler: send(handler, b"", Content_Length=str(2**20 + 1))
    assert "limit of 1 MiB" in refusal(server.url("/x")).message


def test_a_large_picture_is_refused_while_it_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 2**20)

    def unannounced(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/png")
        handler.end_headers()
        while not server.stop.is_set():
            handler.wfile.write(b"x" * 65536)

    server.answers["/x"] = unannounced
    assert "limit of 1 MiB" in refusal(server.url("/x")).message


def test_the_limit_itself_is_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", len(PNG))
    assert fetch_picture(server.url("/a.png"))[0] == PNG


def test_a_body_shorter_than_promised(server: Server) -> None:
    def short(handler: Handler) -> None:
        send(handler, PNG[:50], Content_Length=str(len(PNG)))
        handler.close_connection = True

    server.answers["/x"] = short
    assert "interrupted" in refusal(server.url("/x")).message


def test_a_body_longer_than_promised_is_a_damaged_picture(server: Server) -> None:
    server.answers["/x"] = lambda handler: send(handler, PNG, Content_Length="50")
    with pytest.raises(ImageError, match="damaged"):
        read_picture(server.url("/x"))


def dripping_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    while not handler.stop.wait(DRIP_SECONDS):
        handler.wfile.write(b"X-Drip: drop\r\n")


def dripping_body(handler: Handler) -> None:
    send(handler, b"", Content_Length="1000000")
    while not handler.stop.wait(DRIP_SECONDS):
        handler.wfile.write(b"x")


def silent(handler: Handler) -> None:
    handler.stop.wait()


@pytest.mark.parametrize("answer", [dripping_head, dripping_body, silent])
def test_the_deadline_holds_however_slowly_it_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(fetch, "DEADLINE_SECONDS", 0.3)
    server.answers["/x"] = answer
    start = time.monotonic()
    assert "not downloaded within 0.3 seconds" in refusal(server.url("/x")).message
    assert time.monotonic() - start < 5
    left = [thread for thread in threading.enumerate() if thread.name == "dsvl-fetch"]
    assert all(thread.daemon for thread in left)
    server.stop.set()
    for thread in left:
        thread.join(5)
        assert not thread.is_alive()


def test_the_deadline_ends_the_work_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "DEADLINE_SECONDS", 0.2)
    server.answers["/x"] = dripping_body
    refusal(server.url("/x"))
    deadline = time.monotonic() + 5
    while any(thread.name == "dsvl-fetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_hosts_that_cannot_be_reached(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "refused the connection" in refusal(f"http://127.0.0.1:{unused.getsockname()[1]}/a.png").message

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("no_proxy", "*")
    assert "host not found" in refusal("http://nowhere.invalid/a.png").message


def test_a_server_that_does_not_speak_http(server: Server) -> None:
    server.answers["/x"] = lambda handler: handler.wfile.flush()
    assert "interrupted" in refusal(server.url("/x")).message


@pytest.mark.parametrize(
    "url", ["http://", "https:///a.png", "http://[::1/a.png", "http://h:port/", "file:///etc/hostname", "http://a..b/"]
)
def test_what_is_no_address(url: str) -> None:
    error = refusal(url)
    assert "invalid URL" in error.message or "not an http(s) URL" in error.message


def test_an_invalid_address_does_not_show_its_password() -> None:
    error = refusal("http://me:s3cret@[::1/a.png")
    assert "s3cret" not in error.message


def test_nothing_is_asked_offline(server: Server) -> None:
    with pytest.raises(ImageError, match="offline"):
        fetch_picture(server.url("/a.png"), Access(offline=True).as_typed())
    assert server.requests == []


def test_the_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", server.url(""))
    server.answers["http://elsewhere.invalid/b.png"] = lambda handler: send(handler, PNG)
    assert fetch_picture("http://elsewhere.invalid/b.png")[0] == PNG
