"""Every file in examples/ runs as it stands, but for the upstream's address."""

import ast
import json
import os
import textwrap
from pathlib import Path

import httpx
import pytest
from apis import Apis
from blocks import ROOT, against, free_port
from programs import environment, run, serving, with_key

from apitokenproxy import Bearer, Proxy, Rule, Upstream
from loopback import running_asgi

EXAMPLES = ROOT / "examples"

APPS = {
    "fastapi_app.py": "uvicorn fastapi_app:app",
    "starlette_app.py": "uvicorn starlette_app:app",
    "litestar_app.py": "uvicorn litestar_app:app",
    "quart_app.py": "uvicorn quart_app:app",
    "django_asgi.py": "uvicorn django_asgi:app",
    "flask_app.py": "flask --app flask_app run",
}
OTHERS = {"script.py", "custom_secret_provider.py", "host_identity.py", "openai_agent.py", "apitokenproxy.toml"}


def copied(name: str, folder: Path, url: str) -> None:
    """Put an example into a folder, with its upstream on loopback."""
    (folder / name).write_text(against((EXAMPLES / name).read_text(), url))


def issued(folder: Path) -> str:
    """Issue a client token in the store that the examples use."""
    proxy = Proxy(
        upstreams=[Upstream("any", "https://api.example.com", credential=Bearer("env:ANY"))],
        rules=[Rule("none", effect="deny")],
        store=f"sqlite:///{folder / 'tokens.db'}",
    )
    token = proxy.tokens.issue(tenant="acme").token
    proxy.close()
    return token


def test_every_example_is_run_here() -> None:
    """A new example gets a test."""
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {*APPS, *OTHERS}


@pytest.mark.long
@pytest.mark.parametrize("name", APPS)
def test_an_app_swaps_the_token_for_the_key(name: str, apis: Apis, tmp_path: Path) -> None:
    """Each framework's example forwards a read with the real key, and refuses the rest."""
    copied(name, tmp_path, apis.url)
    port = free_port()
    token = issued(tmp_path)
    said = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) or ""
    assert said.startswith(APPS[name])
    with (
        serving(f"{APPS[name]} --port {port}", tmp_path, with_key(), port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/proxy/github", trust_env=False) as client,
    ):
        assert client.get("/zen").json()["code"] == "unauthenticated"
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/zen").text == "Keep it logically awesome."
        assert client.delete("/repos/acme/site").json()["code"] == "denied"
    assert (apis.seen, apis.refused) == (["GET /zen"], [])


def test_the_script_prints_an_answer_and_a_refusal(apis: Apis, tmp_path: Path) -> None:
    """One call passes, one is refused by the rules, both are recorded."""
    copied("script.py", tmp_path, apis.url)
    assert run("python -W error script.py", tmp_path, with_key()) == "Keep it logically awesome.\ndenied\n"
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(record["status"], record["code"]) for record in records] == [(200, ""), (403, "denied")]


def test_a_secret_provider_of_ones_own(apis: Apis, tmp_path: Path) -> None:
    """The key comes from where the example's own class finds it, and from nowhere else."""
    copied("custom_secret_provider.py", tmp_path, apis.url)
    (tmp_path / "secrets.json").write_text(json.dumps({"github": os.environ["GITHUB_TOKEN"]}))
    command = "python -W error custom_secret_provider.py"
    assert run(command, tmp_path, environment()) == "Keep it logically awesome.\n"
    (tmp_path / "secrets.json").unlink()
    assert "secret_unavailable" in run(command, tmp_path, environment())
    assert (apis.seen, apis.refused) == (["GET /zen"], [])


def test_the_host_apps_session_calls(apis: Apis, tmp_path: Path) -> None:
    """Nobody is let in before the login; afterwards the session may read, and no other site may use it."""
    copied("host_identity.py", tmp_path, apis.url)
    port = free_port()
    with (
        serving(f"uvicorn host_identity:app --port {port}", tmp_path, with_key(), port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        assert client.get("/proxy/github/zen").json()["code"] == "unauthenticated"
        client.post("/login/ann")
        assert client.get("/proxy/github/zen").text == "Keep it logically awesome."
        other_site = {"Sec-Fetch-Site": "cross-site"}
        assert client.post("/proxy/github/zen", headers=other_site).json()["code"] == "cross_site"
        assert client.post("/proxy/github/zen").json()["code"] == "denied"
    assert (apis.seen, apis.refused) == (["GET /zen"], [])
    assert "cookie" not in apis.headers[0]


def test_an_agent_with_only_a_client_token(apis: Apis, tmp_path: Path) -> None:
    """The OpenAI SDK works with base URL and client token alone; the configuration is the docstring's own."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / "openai_agent.py").read_text())) or ""
    written = textwrap.dedent(docstring[docstring.index("    [upstreams") :])
    Path("apitokenproxy.toml").write_text('[proxy]\nprefix = "/proxy"\n\n' + against(written, apis.url))
    proxy = Proxy.from_toml("apitokenproxy.toml")
    token = proxy.tokens.issue(tenant="agents").token
    copied("openai_agent.py", tmp_path, apis.url)
    with running_asgi(proxy.asgi) as url:
        variables = environment(OPENAI_BASE_URL=f"{url}/proxy/openai", OPENAI_API_KEY=token)
        printed = run("python openai_agent.py", tmp_path, variables)
    assert printed == "A proxy stands between.\ndenied\n"
    assert (apis.seen, apis.refused) == (["POST /v1/chat/completions"], [])
