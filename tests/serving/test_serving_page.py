"""The playground page: nothing from outside, and a policy that allows just its own parts."""

from __future__ import annotations

import base64
import hashlib
import re

from serving_process import Server


def test_page_is_whole_and_needs_nothing_else(server: Server) -> None:
    answer = server.get("/")
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert len(answer.body) <= 60_000
    assert not re.search(r"https?://|//cdn|@import|url\(", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page), "the policy refuses inline handlers"


def test_policy_names_the_hashes_of_the_page(server: Server) -> None:
    answer = server.get("/")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
