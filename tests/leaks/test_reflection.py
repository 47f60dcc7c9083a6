"""An upstream that puts the key it was sent into its answer's headers does not tell it to the client."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from noisy_proxy import make
from reflecting_upstream import FORMS, running_reflection
from test_leaks import ENVIRONMENT, REAL, keep_keys

from apitokenproxy import Proxy
from leaks.forms import assert_clean

KEYS = {"bearer": "bearer key", "basic": "basic key", "query": "query key", "header": "header key"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with running_reflection() as url:
        yield url


@pytest.fixture
def proxy(upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    keep_keys(tmp_path)
    proxy = make(tmp_path, upstream, upstream, str(tmp_path / "audit.jsonl"))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_in_the_answers_headers_is_not_passed_on(proxy: Proxy, kind: str, form: str) -> None:
    """Whole, without its scheme, encoded once more, decoded, or as the target that it stood in."""
    token = proxy.tokens.issue(tenant="acme").token
    with httpx.Client(transport=proxy.transport(token)) as client:
        answer = client.get(f"http://proxy/{kind}/headers/{form}?q=1")
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert_clean({KEYS[kind]: REAL[KEYS[kind]]}, {form: repr(answer.headers.raw).encode()})
