"""The page in a real browser: complete, chat, vote; nothing is asked of another host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Page, chromium
from serving_process import Server

from gristmill.serving.feedback import latest
from gristmill.serving.request_log import entries

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium")
NAMED = ("button", "textbox", "spinbutton", "slider", "checkbox", "log", "region")  # roles


@pytest.fixture(scope="module")
def server(run_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("page") / "log.jsonl"
    started = Server(log, "--chat-template", "plain", "--say", "answer <b>✓</b> & ")
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    opened = Page(str(PROGRAM), tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()
    assert opened.failures == []
    own = (f"http://127.0.0.1:{server.port}/", "data:", "about:")
    assert [url for url in opened.requests if not url.startswith(own)] == []


@pytest.fixture
def page(server: Server, browser: Page) -> Page:
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.until("document.readyState === 'complete' && typeof talk === 'object' && context > 0")
    return browser


def votes(server: Server) -> list[dict[str, object]]:
    return list(latest(server.log.with_name("feedback.jsonl")).values())


def test_complete_and_vote(server: Server, page: Page) -> None:
    page.run("$('max_tokens').value = 18; $('go').click()")
    page.until("!running && document.querySelector('#votes button')")
    said = page.run("text")
    assert "<b>✓</b>" in said
    assert page.run("answer.querySelector('b')") is None  # a model's markup stays text
    page.run("document.querySelector('#votes [aria-label=\"Bad answer\"]').click()")
    page.until("document.querySelector('#votes .hint').textContent === 'kept'")
    chosen = "[...document.querySelectorAll('#votes [aria-pressed=true]')]"
    pressed = page.run(f"{chosen}.map((button) => button.value)")
    assert pressed == ["down"]
    assert votes(server)[-1]["rating"] == "down"
    assert votes(server)[-1]["answer"][0]["text"] == said  # type: ignore[index]


def test_chat_and_edit_to_ideal(server: Server, page: Page) -> None:
    page.run("$('to-chat').click()")
    assert page.run("document.activeElement.id") == "say"
    assert page.run("$('complete-view').hidden && !$('chat-view').hidden") is True
    for number, text in enumerate(("first question", "second <i>one</i>")):
        page.type(text)
        page.key("Enter", 13, "\r")
        page.until(f"!running && document.querySelectorAll('#talk .votes').length === {number + 1}")
    assert page.run("document.querySelectorAll('#talk i').length") == 0
    assert page.run("talk.map((m) => m.role)") == ["user", "assistant"] * 2
    chats = (e for e in entries(server.log) if e["endpoint"] == "/v1/chat/completions")
    sent = [entry["request"]["messages"] for entry in chats][-1]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == page.run("talk[1].content")
    row = "[...document.querySelectorAll('#talk .votes')].at(-1)"
    page.run(f"{row}.querySelector('[aria-expanded]').click()")
    assert page.run("document.activeElement.value") == page.run("talk[3].content")
    page.run("document.activeElement.value = ''")
    page.type("what it should have said")
    page.run(f"{row}.querySelector(':scope > .stack button').click()")
    page.until(f"{row}.querySelector('.hint').textContent === 'kept'")
    page.run(f"{row}.querySelector('[value=up]').click()")
    page.until(f"{row}.querySelector('[value=up]').getAttribute('aria-pressed') === 'true'")
    last = votes(server)[-1]
    assert (last["ideal"], last["rating"]) == ("what it should have said", "up")
    assert last["endpoint"] == "/v1/chat/completions"


def test_a_refused_message_may_be_mended(page: Page) -> None:
    page.run("$('to-chat').click(); $('say').value = 'x'.repeat(400); $('send').click()")
    page.until("!running && $('error').textContent.includes('shorten')")
    assert page.run("$('talk').children.length + talk.length") == 0
    assert page.run("$('say').value.length") == 400


def test_every_control_has_a_name(page: Page) -> None:
    page.run("$('max_tokens').value = 4; $('go').click()")
    page.until("!running && document.querySelector('#votes button')")
    for view in ("to-complete", "to-chat"):
        page.run(f"$('{view}').click()")
        nodes = page.command("Accessibility.getFullAXTree")["nodes"]
        named = [(n["role"]["value"], n["name"]["value"]) for n in nodes if "name" in n]
        controls = [(role, name) for role, name in named if role in NAMED]
        assert len(controls) > 8
        assert all(name.strip() for _, name in controls), controls


def test_without_template_there_is_no_chat(server: Server, page: Page) -> None:
    page.run("location.hash = '#chat'; connect()")
    page.until("chatting")
    page.run("show(false)")
    meta = "{n_ctx: 9, digest: 'd', chat_template: null, feedback: false}"
    page.run(
        f"show(false); fetch = async () => Response.json({{data: [{{id: 'm', meta: {meta}}}]}})"
    )
    page.run("connect()")
    page.until("$('to-chat').disabled")
    page.run("setBusy(false)")
    assert page.run("$('to-chat').disabled && !chatting && !votes") is True
