"""What /openapi.json allows is answered as it says: requests made from it by schemathesis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from serving_fake import fake_runtime

from gristmill.serving.app import create_app
from gristmill.serving.chat_format import chat_format
from gristmill.serving.engine import Engine
from gristmill.serving.limits import Limits

MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
EXAMPLES = 25  # of each route and mode; all take about 4 s


@pytest.fixture(scope="module")
def schema() -> Iterator[Any]:
    limits = Limits()
    engine = Engine(fake_runtime(), n_ctx=256, slots=4, queue=64, seconds=60)
    chat = chat_format(engine.runtime.model, "plain")
    app = create_app(engine, limits, name="fake", api_key=None, hosts=None, log=None, chat=chat)
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    assert engine.stop()


def check(response: Any, case: Any) -> None:
    if response.status_code >= 400:
        assert response.status_code in (400, 404, 405, 413, 415), response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return
    case.validate_response(response, [response_schema_conformance, content_type_conformance])


def test_every_route_answers_as_its_schema_says(schema: Any) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]

    def ask(operation: Any, mode: Any) -> None:
        @settings(
            max_examples=EXAMPLES, derandomize=True, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: Any) -> None:
            response = case.call()
            seen[operation.label, response.status_code] += 1
            check(response, case)

        asked()

    for operation in operations:
        for mode in MODES if operation.body else MODES[:1]:
            ask(operation, mode)
    reached = {label for label, status in seen if status == 200}
    labels = {operation.label for operation in operations}
    assert len(labels) >= 11
    # random names are no model, random ids no answer, and a chat with random further fields is
    # refused by their names
    rare = {"GET /v1/models/{name}", "POST /v1/feedback", "POST /v1/chat/completions"}
    assert labels - reached <= rare
