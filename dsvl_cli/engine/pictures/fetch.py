"""Fetches a picture from a URL, with limits on size, time and redirects."""

from __future__ import annotations

import base64
import ssl
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from socket import gaierror
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, ProxyHandler, UnknownHandler

from dsvl_cli.errors import ImageError

MAX_BYTES = 20 * 2**20
MAX_REDIRECTS = 5
DEADLINE_SECONDS = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Types that servers send for unknown files; the file's content decides then.
_UNSPECIFIC_TYPES = frozenset({"application/octet-stream", "binary/octet-stream"})
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})


def fetch_picture(url: str, *, offline: bool = False) -> tuple[bytes, str]:
    """Fetch `url`; whether the response is really a picture is only known once it is decoded.

    A password in the URL is only sent to its host: it is neither shown nor forwarded by a redirect. Proxies are taken
    from the environment.

    Returns:
        The bytes, and the name to show: the URL without user name and password.

    Raises:
        ImageError: offline, unreachable, too slow, too large, too many redirects, an HTTP error, not a picture.
    """
    parts, name = _split(url)
    if offline:
        raise ImageError(f"{name}: not downloaded because of --offline", "save the picture to a file first")
    # A socket's timeout restarts with every byte received, and looking up a host name has none. Only waiting for a
    # thread bounds the total time; if it is abandoned, it ends by itself or with the process.
    future: Future[bytes] = Future()
    threading.Thread(target=_work, args=(future, parts, name), name="dsvl-fetch", daemon=True).start()
    try:
        return future.result(timeout=DEADLINE_SECONDS), name
    except (OSError, HTTPException, ValueError) as exc:  # urllib's URLError is an OSError, and so is TimeoutError
        raise _explain(exc, name) from exc


def _split(url: str) -> tuple[SplitResult, str]:
    """Return the parts of a URL, and the URL without user name and password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a port
    except ValueError as exc:
        raise ImageError("invalid URL", "a URL looks like https://example.org/photo.jpg") from exc
    name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"{name}: not an http(s) URL", "a URL looks like https://example.org/photo.jpg")
    return parts, name


def _work(future: Future[bytes], parts: SplitResult, name: str) -> None:
    try:
        future.set_result(_follow(parts, name, time.monotonic() + DEADLINE_SECONDS))
    except BaseException as exc:
        future.set_exception(exc)


def _follow(parts: SplitResult, name: str, deadline: float) -> bytes:
    """Request the picture and follow redirects.

    Not by urllib's own handler, which reads their bodies without a limit and follows loops.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(), UnknownHandler()):
        opener.add_handler(handler)
    for _ in range(MAX_REDIRECTS + 1):
        request = _request(parts)
        with opener.open(request, timeout=max(0.01, deadline - time.monotonic())) as response:
            if response.status not in _REDIRECTS:
                return _read(response, name, deadline)
            parts = _redirected(parts, response.headers.get("location", ""), name)
    raise ImageError(f"{name}: more than {MAX_REDIRECTS} redirects", "use the URL that they lead to")


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
    if isinstance(cause, gaierror):
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
