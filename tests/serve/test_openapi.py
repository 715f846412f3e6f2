"""The OpenAPI document against the server that it describes: schemathesis asks what the document allows, and more."""

from contextlib import nullcontext, suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection
from serve_running import running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def described(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("described")
    (folder / "a.jpg").write_bytes(photos[0].read_bytes())
    models = ["yolov5n-bccd", "efficientnet-lite0", "sentiment-en", "topics"]
    with running(*models, "--workers", "1", "--jobs", folder) as server:
        yield server


def test_schemathesis_finds_nothing(described):
    # A document cannot say that a string must be a picture, or a tensor must fit a graph: such requests may be refused.
    # Nor that a deadline of a millisecond is too short: the answer 503 or 504 is the right one.
    config = schemathesis.Config.from_dict(
        {
            "checks": {
                "positive_data_acceptance": {"enabled": False},
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]},
            }
        }
    )
    schema = schemathesis.openapi.from_url(f"{described.url}/openapi.json", config=config)
    statuses = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:

            @settings(
                max_examples=10,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                form = case.media_type == "multipart/form-data"  # where objects and lists become bytes like any others
                answer = case.call_and_validate(excluded_checks=[negative_data_rejection] if form else [])
                statuses.setdefault(case.operation.path, set()).add(answer.status_code)

            with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():  # of what has no input
                ask()
    assert len(statuses) > 20
    assert 200 in statuses["/v1/models"]
    assert {422} & statuses["/v1/detect"]
    assert {200, 422} <= statuses["/v1/classify-text"]
    assert {200, 422} <= statuses["/v1/sentiment"]
