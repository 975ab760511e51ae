"""One HTTP request by urllib: a body from a byte on, and errors as what they mean for a retry."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

AGENT = "gristmill (+https://pypi.org/project/gristmill)"
_LATER = (408, 425, 429, 500, 502, 503, 504)  # of RFC 9110 and 6585: worth another try


class Gone(Exception):
    """Asking again gives the same answer."""


class NotNow(Exception):
    """Asking again may help; `wait`: seconds, where the server says so."""

    def __init__(self, reason: str, wait: float | None = None, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.hopeless = hopeless  # no network, say: the user is to ask again, not we


@dataclass
class Answer:
    """What a server answers: where its body starts, how long the file is, how it is recognised."""

    start: int
    total: int | None  # bytes of the whole file, None where it does not say
    etag: str
    modified: int  # unix seconds, 0 where it does not say
    dated: str  # Last-Modified as it was sent
    validator: str  # for If-Range; empty: cannot be resumed
    body: Any

    def complete(self, have: int) -> bool:
        """Say whether a part of `have` bytes is the whole file (416 with that length)."""
        return self.body is None and self.total == have

    def continues(self, validator: str, total: int | None) -> bool:
        """Say whether this is the rest of the file that began with a validator and a length.

        A server must send the ETag with a part where it has one, but need not send the date.
        """
        if self.total is not None and total is not None and self.total != total:
            return False
        if validator.startswith('"'):
            return self.etag == validator
        return self.dated in ("", validator)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the body; raises NotNow where it breaks off in a way that can be seen."""
        with network_errors():
            while self.body is not None and (block := self.body.read(size)):
                yield block


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, never from https down."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise Gone(f"redirected to {newurl}, which is no safe place to go")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Turn what the network does into NotNow."""
    try:
        yield
    except TimeoutError as error:
        raise NotNow("no byte for too long") from error
    except http.client.HTTPException as error:
        raise NotNow(f"broke off ({type(error).__name__})") from error
    except OSError as error:  # of the socket: what is written is written elsewhere
        raise NotNow(f"connection lost ({error.strerror or error})") from error


@contextlib.contextmanager
def connect(url: str, start: int, validator: str, timeout: float) -> Iterator[Answer]:
    """Ask for a file, from byte `start` if it is still the one that `validator` names.

    Raises Gone and NotNow.
    """
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_Redirects())
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            yield _refused(error, start)
        return
    except urllib.error.URLError as error:
        raise _unreachable(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise NotNow(f"no answer ({type(error).__name__}: {error})") from error
    with response:
        yield _answer(response, response)


def _answer(response: Any, body: Any) -> Answer:
    headers = response.headers
    etag = headers.get("ETag", "").strip()
    dated = headers.get("Last-Modified", "").strip()
    start, total = 0, _number(headers.get("Content-Length"))
    if response.status in (206, 416):
        start, total = _range(headers.get("Content-Range", ""))
    validator = _validator(etag, dated, headers.get("Date", ""))
    return Answer(start, total, etag, _seconds(dated), dated, validator, body)


def _validator(etag: str, dated: str, now: str) -> str:
    """Return what names this version of a file without doubt, or ""."""
    if etag:
        return etag if etag.startswith('"') else ""  # W/: of several versions; no date then either
    return dated if 0 < _seconds(dated) < _seconds(now) else ""  # else it may change once more


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _range(text: str) -> tuple[int, int | None]:
    """Return (first byte, length of the file) of a Content-Range; (-1, None) where it is none."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    if found is None:
        return -1, None
    return int(found[1] or -1), _number(found[2])


def _seconds(date: str) -> int:
    try:
        return max(0, int(email.utils.parsedate_to_datetime(date).timestamp())) if date else 0
    except ValueError:
        return 0


def _refused(error: urllib.error.HTTPError, start: int) -> Answer:
    """Return the answer to a range beyond the end; raise what any other refusal means."""
    if error.code == 416 and start:
        return _answer(error, None)
    said = f"the server answers {error.code} {error.reason}".strip()
    if error.code in _LATER:
        raise NotNow(said, _retry_after(error.headers.get("Retry-After", "")))
    raise Gone(said.replace("\n", " "))


def _retry_after(text: str) -> float | None:
    if text.strip().isdigit():
        return float(text)
    at = _seconds(text.strip())
    return max(0.0, at - time.time()) if at else None


def _unreachable(error: urllib.error.URLError) -> Exception:
    reason = error.reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Gone(f"its certificate is not valid ({reason.verify_message})")
    if isinstance(reason, socket.gaierror):
        text = f"no such host, or no network ({reason.strerror})"
        return NotNow(text, hopeless=reason.errno == socket.EAI_NONAME)
    if isinstance(reason, TimeoutError):
        return NotNow("no answer for too long")
    if isinstance(reason, str):
        return Gone(reason)
    return NotNow(f"no connection ({getattr(reason, 'strerror', None) or reason})")
