"""Fetches a picture from a URL, with limits on size, time, redirects, and the hosts it may come from.

`fetch_picture` is the only function of dsvl that opens a connection for a picture, and it decides whether it may.
Host names are resolved here, each address is checked, and the connection goes to the address that was checked: a name
that resolves to another one a moment later (DNS rebinding) gains nothing, and spellings such as 0x7f.1 or
2130706433 are what they resolve to.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, ProxyHandler, Request, UnknownHandler

from dsvl_cli.engine.pictures.access import Access, shown_address
from dsvl_cli.errors import ImageError, NotFetched

MAX_BYTES = 20 * 2**20
MAX_REDIRECTS = 5
DEADLINE_SECONDS = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Types that servers send for unknown files; the file's content decides then.
_UNSPECIFIC_TYPES = frozenset({"application/octet-stream", "binary/octet-stream"})
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})


def fetch_picture(url: str, access: Access) -> tuple[bytes, str]:
    """Fetch `url`; whether the response is really a picture is only known once it is decoded.

    A password in the URL is only sent to its host: it is neither shown nor forwarded by a redirect. Proxies are taken
    from the environment. Unless `access.private`, hosts must have public addresses only. A redirect from a public host
    to a private one is never followed without it, even for a URL that the user typed.

    Returns:
        The bytes, and the name to show: see `shown_address`.

    Raises:
        ImageError: offline, not allowed, unreachable, too slow, too large, too many redirects, an HTTP error, not a
            picture.
    """
    parts, name = _split(url)
    if access.offline:
        raise NotFetched(f"{name}: not downloaded because of --offline", "save the picture to a file first")
    # A socket's timeout restarts with every byte received, and looking up a host name has none. Only waiting for a
    # thread bounds the total time; if it is abandoned, it ends by itself or with the process.
    future: Future[bytes] = Future()
    arguments = (future, parts, name, access.private)
    threading.Thread(target=_work, args=arguments, name="dsvl-fetch", daemon=True).start()
    try:
        return future.result(timeout=DEADLINE_SECONDS), name
    except (OSError, HTTPException, ValueError) as exc:  # urllib's URLError is an OSError, and so is TimeoutError
        raise _explain(exc, name) from None  # its text may contain parts of the URL that are not to be shown


def _split(url: str) -> tuple[SplitResult, str]:
    """Return the parts of a URL, and how it is shown."""
    name = shown_address(url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a port
    except ValueError:
        raise ImageError("invalid URL", "a URL looks like https://example.org/photo.jpg") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"{name}: not an http(s) URL", "a URL looks like https://example.org/photo.jpg")
    return parts, name


def _work(future: Future[bytes], parts: SplitResult, name: str, private: bool) -> None:
    try:
        future.set_result(_follow(parts, name, time.monotonic() + DEADLINE_SECONDS, _Hosts(name, private)))
    except BaseException as exc:
        future.set_exception(exc)


def _follow(parts: SplitResult, name: str, deadline: float, hosts: _Hosts) -> bytes:
    """Request the picture and follow redirects.

    Not by urllib's own handler, which reads their bodies without a limit and follows loops.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (ProxyHandler(), _PlainHandler(hosts), _SecureHandler(hosts), UnknownHandler()):
        opener.add_handler(handler)
    for _ in range(MAX_REDIRECTS + 1):
        request = _request(parts)
        hosts.asked = request.host
        with opener.open(request, timeout=max(0.01, deadline - time.monotonic())) as response:
            if response.status not in _REDIRECTS:
                return _read(response, name, deadline)
            parts = _redirected(parts, response.headers.get("location", ""), name)
        hosts.follow_redirect()
    raise ImageError(f"{name}: more than {MAX_REDIRECTS} redirects", "use the URL that they lead to")


class _Hosts:
    """Decides which hosts may be connected to.

    Args:
        name: of the picture, for messages.
        private: whether addresses of this machine and its network are allowed.

    Attributes:
        asked: the host (and port) of the current URL.
    """

    def __init__(self, name: str, private: bool) -> None:
        self.asked: str | None = None
        self._name = name
        self._private = private
        self._was_public = False

    def resolve(self, host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        """Return the families and addresses of a host.

        Raises:
            ImageError: one of them is not public, and only public ones are allowed.
            OSError: the host is not found.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        public = all(is_public(str(address[0])) for *_, address in found)
        if not public and not self._private:
            message = f"{self._name}: leads to {host}, on this machine or its network"
            if self._was_public:
                raise ImageError(message, "use the URL that it leads to, if you trust it")
            raise ImageError(f"{message}; --allow-private-addresses fetches it")
        self._was_public |= public
        return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]

    def check_for_proxy(self, host: str) -> None:
        """Check a host that the proxy will resolve; one that only the proxy knows is left to it.

        Raises:
            ImageError: it is not public, and only public ones are allowed.
        """
        if not self._private:
            try:
                self.resolve(urlsplit(f"//{host}").hostname or "", 0)
            except (OSError, ValueError):
                return

    def follow_redirect(self) -> None:
        """A public host must not lead to a private one; the private hosts that the user named may."""
        self._private &= not self._was_public


def is_public(address: str) -> bool:
    """Return whether an IP address is on the internet, and not of this machine, its network, or a special one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        return ip in _GLOBAL_UNICAST and ip.is_global and not any(ip in network for network in _SPECIAL_6)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL_4)


_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Special ones that not every version of Python knows; the last has the services of Azure for its machines.
_SPECIAL_4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
_SPECIAL_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))


class _Plain(HTTPConnection):
    """A connection to an address that was checked."""

    hosts: _Hosts | None = None

    def connect(self) -> None:
        """Connect to the first address that answers."""
        if self.hosts is None:  # to the proxy
            super().connect()
            return
        problem: OSError | None = None
        for family, address in self.hosts.resolve(self.host, self.port):
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.settimeout(self.timeout)
                opened.connect(address)
                self.sock = opened
                return
            except OSError as exc:
                opened.close()
                problem = exc
        raise problem or OSError("no address")


class _Secure(HTTPSConnection, _Plain):
    """The same with TLS: `HTTPSConnection.connect` calls that of `_Plain` first."""


class _PlainHandler(HTTPHandler):
    """Opens http URLs."""

    def __init__(self, hosts: _Hosts) -> None:
        super().__init__()
        self._hosts = hosts

    def http_open(self, request: Request) -> HTTPResponse:
        """Open a URL."""
        return self.do_open(_connection(_Plain, request, self._hosts), request)


class _SecureHandler(HTTPSHandler):
    """Opens https URLs."""

    def __init__(self, hosts: _Hosts) -> None:
        super().__init__()
        self._hosts = hosts

    def https_open(self, request: Request) -> HTTPResponse:
        """Open a URL."""
        return self.do_open(_connection(_Secure, request, self._hosts), request)


def _connection(kind: type[_Plain], request: Request, hosts: _Hosts) -> Callable[..., HTTPConnection]:
    """Return a function that makes the connection for a request: to its host, or to a proxy that was set before."""
    proxied = request.host != hosts.asked
    if proxied:
        hosts.check_for_proxy(hosts.asked or "")

    def make(host: str, **options: Any) -> HTTPConnection:
        connection = kind(host, **options)
        connection.hosts = None if proxied else hosts
        return connection

    return make


def _request(parts: SplitResult) -> urllib.request.Request:
    """Make the request for a URL that may contain a user name, a password, and non-ASCII characters."""
    host = parts.netloc.rpartition("@")[2]
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    path, query = (quote(text, safe="%/:=&?~+!$,;'@()*[]|") for text in (parts.path or "/", parts.query))
    address = SplitResult(parts.scheme.lower(), host, path, query, "").geturl()
    request = urllib.request.Request(address, headers={"User-Agent": "dsvl", "Accept": "image/*"})
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(login).decode('ascii')}")
    return request


def _redirected(parts: SplitResult, location: str, name: str) -> SplitResult:
    """Return the target of a redirect, without user name and password."""
    target = urlsplit(urljoin(parts.geturl(), location))
    if not location or target.scheme not in ("http", "https") or not target.hostname:
        raise ImageError(f"{name}: a redirect does not lead to an http(s) URL")
    if (parts.scheme, target.scheme) == ("https", "http"):
        raise ImageError(f"{name}: a redirect leads from https to http, which is not followed")
    return target._replace(netloc=target.netloc.rpartition("@")[2])


def _read(response: HTTPResponse, name: str, deadline: float) -> bytes:
    """Read the body of a response after checking in its headers that it is a picture within the size limit."""
    _check_head(response, name)
    expected = response.length
    data = bytearray()
    while chunk := response.read1(2**16):
        data += chunk
        if len(data) > MAX_BYTES:
            raise _too_large(name)
        if time.monotonic() > deadline:
            raise TimeoutError
    if expected is not None and len(data) < expected:
        raise HTTPException("the body is shorter than the Content-Length")
    return bytes(data)


def _check_head(response: HTTPResponse, name: str) -> None:
    if response.status != HTTPStatus.OK:
        raise ImageError(f"{name}: the server answered {_status_text(response.status)}")
    kind = response.headers.get_content_type() if "content-type" in response.headers else "application/octet-stream"
    if kind in _WEB_PAGES:
        raise ImageError(f"{name}: a web page, not a picture", "use the URL of the picture itself")
    if not kind.startswith("image/") and kind not in _UNSPECIFIC_TYPES:
        raise ImageError(f"{name}: not a picture, but {kind}")
    if response.length is not None and response.length > MAX_BYTES:
        raise _too_large(name)


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name}: larger than the limit of {MAX_BYTES // 2**20} MiB", "download it and pass the file instead"
    )


def _explain(exc: OSError | HTTPException | ValueError, name: str) -> ImageError:
    """Turn a network error into a message for the user."""
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(cause, TimeoutError):
        return ImageError(f"{name}: not downloaded within {DEADLINE_SECONDS:g} seconds", "download it first")
    if isinstance(cause, socket.gaierror):
        return ImageError(f"{name}: host not found", "check the URL and the network")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ImageError(f"{name}: the server's certificate is not trusted")
    if isinstance(cause, ConnectionRefusedError):
        return ImageError(f"{name}: the server refused the connection")
    if isinstance(cause, (ValueError, InvalidURL)):
        return ImageError(f"{name}: invalid URL")
    if isinstance(cause, HTTPException):
        return ImageError(f"{name}: the connection was interrupted", "try again")
    return ImageError(f"{name}: the server cannot be reached", "check the URL and the network")
