"""References: which place they name, what stands in their braces, and which are refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from secret_calls import ACME, COLOURS, Changing, Hand, read, read_all, refusal, revealed

from apitokenproxy import Bearer, Caller, ConfigurationError, Credential, Proxy, Rule, Secret, Upstream, nonblocking
from apitokenproxy._colour import ASYNC, SYNC
from apitokenproxy.errors import NoSecretForCaller, SecretMissing, SecretUnavailable
from apitokenproxy.messages import Hidden, Request
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.env import EnvProvider
from apitokenproxy.secrets.exec import ExecProvider
from apitokenproxy.secrets.file import FileProvider
from apitokenproxy.testing import FixedSecrets, MemoryAudit

TOKEN = "ghp_S3cretS3cretS3cret"


class Naming:
    """A provider whose secrets are the names that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        self.asked.append(reference)
        return Secret(f"key of {reference}")


def all_providers() -> Secrets:
    return Secrets({"env": EnvProvider(), "file": FileProvider(), "exec": ExecProvider(), "naming": Naming()})


# --- several lines --------------------------------------------------------------------------

KEY_FILE = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIM\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize("reference", ["changing:x", "changing:{tenant}"])
@pytest.mark.parametrize("colour", COLOURS)
def test_who_needs_a_secret_of_several_lines_says_so(colour: str, reference: str) -> None:
    """The same secret is refused for all else, where it would end a header and begin another; it is not shown."""
    provider = Changing(KEY_FILE)
    secrets = Secrets({"changing": provider})
    assert read(secrets, colour, reference, lines=True).reveal() == KEY_FILE.encode()
    named = reference.replace("{tenant}", ACME.tenant)
    assert refusal(secrets, colour, reference) == (
        f"{named} holds a newline or control character; write it again without"
    )
    assert provider.fetched == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_what_was_refused_for_its_lines_is_read_again(colour: str) -> None:
    """So that it works again when it was mended, and not when its time to live is over; at most once a second."""
    clock, provider = Hand(), Changing(KEY_FILE, ttl=300.0)
    secrets = Secrets({"changing": provider}, clock=clock)
    refusal(secrets, colour, "changing:x")
    clock.now, provider.material = 0.5, "one line"
    refusal(secrets, colour, "changing:x")
    clock.now = 1.5
    refusal(secrets, colour, "changing:x")
    assert (revealed(secrets, colour, "changing:x"), provider.fetched) == (b"one line", 2)


class Signs:
    """A credential kind that signs with a key of several lines."""

    place = "header X-Signature"

    def __init__(self, *, lines: bool) -> None:
        self.lines = lines

    def bind(self, secrets: Any) -> Callable[[Caller], Any]:
        read = secrets.reader("keys:key", lines=self.lines)

        async def obtain(caller: Caller) -> Credential:
            return Credential(headers=((b"X-Signature", Hidden(b"%d" % len((await read(caller)).reveal()))),))

        return obtain


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("lines", [True, False])
def test_what_a_credential_kind_says_of_lines_holds_in_the_proxy(colour: str, lines: bool) -> None:
    """For its requests, and for the check that reads every secret."""
    sent: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["X-Signature"])
        return httpx.Response(200)

    async def aupstream(request: httpx.Request) -> httpx.Response:
        return upstream(request)

    transport = httpx.MockTransport(upstream if colour == "sync" else aupstream)
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=Signs(lines=lines), transport=transport)],
        rules=[Rule("all", effect="allow")],
        audit=MemoryAudit(),
        secret_providers={"keys": FixedSecrets(key=KEY_FILE)},
    )
    told = "upstreams.api.credential: keys:key holds a newline or control character; write it again without"
    assert proxy.missing_secrets() == ([] if lines else [told])
    token = proxy.tokens.issue(tenant="acme").token

    async def get() -> int:
        async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
            return (await client.get("http://proxy/api/x")).status_code

    if colour == "sync":
        with httpx.Client(transport=proxy.transport(token)) as client:
            status = client.get("http://proxy/api/x").status_code
    else:
        status = asyncio.run(get())
    proxy.close()
    assert (status, sent) == ((200, [str(len(KEY_FILE))]) if lines else (503, []))


# --- for whom there is none ------------------------------------------------------------------

NONE_THERE = [
    ("env:NO_KEY_OF_{tenant}", "environment variable NO_KEY_OF_acme is not set; export it before starting"),
    ("file:/proc/{subject}-none", "secret file /proc/ci-none cannot be read: No such file or directory"),
    ("fixed:{tenant}/{subject}", "the fixed secrets have no acme/ci"),
]


def none_there() -> Secrets:
    return Secrets({"env": EnvProvider(), "file": FileProvider(), "fixed": FixedSecrets()})


@pytest.mark.parametrize(("reference", "told"), NONE_THERE)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_caller_for_whom_there_is_no_secret_is_refused(colour: str, reference: str, told: str) -> None:
    """With an answer that says that trying again does not help; nothing hangs on it."""
    with pytest.raises(NoSecretForCaller) as refused:
        read(none_there(), colour, reference)
    assert (refused.value.detail, refused.value.retry_after) == (told, None)
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_folder_that_is_not_there_is_nobodys_missing_secret(colour: str, tmp_path: Path) -> None:
    """What was not mounted is the operator's matter: no tenant is told that it is not set up."""
    assert refusal(none_there(), colour, f"file:{tmp_path}/gone/{{tenant}}").endswith("No such file or directory")
    with pytest.raises(SecretUnavailable) as refused:
        read(none_there(), colour, f"file:{tmp_path}/gone/{{tenant}}")
    assert refused.type is SecretUnavailable


@pytest.mark.parametrize(("reference", "told"), NONE_THERE)
@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_missing_for_all_is_the_operators_matter(colour: str, reference: str, told: str) -> None:
    """The same places, named outright."""
    named = reference.replace("{tenant}", "acme").replace("{subject}", "ci")
    with pytest.raises(SecretMissing) as refused:
        read(none_there(), colour, named)
    assert (refused.value.detail, refused.value.outage) == (told, False)


@pytest.mark.parametrize("reference", ["changing:x", "changing:{tenant}"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_place_that_does_not_say_so_is_unavailable(colour: str, reference: str) -> None:
    """An outage is nobody's fault, and ends; the caller may try again."""
    secrets = Secrets({"changing": Changing(SecretUnavailable("nobody answers", outage=True))})
    with pytest.raises(SecretUnavailable) as refused:
        read(secrets, colour, reference)
    assert (refused.type, refused.value.retry_after) == (SecretUnavailable, 1.0)


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [("fixed:{tenant}", 403, "no_secret_for_caller"), ("fixed:acme", 503, "secret_missing")],
)
def test_the_client_is_told_whether_it_helps_to_try_again(reference: str, status: int, code: str) -> None:
    """By status and code; which place said so is in the audit record alone."""
    audit = MemoryAudit()
    answer = with_proxy(
        lambda client: client.get("http://proxy/api/x"),
        audit=audit,
        credential=Bearer(reference),
        transport=httpx.MockTransport(lambda _: httpx.Response(200)),
    )
    assert (answer.status_code, answer.headers["X-Proxy-Error"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "fixed secrets" not in answer.text
    [record] = audit.records
    assert (record.code, record.reason, record.sent) == (code, "the fixed secrets have no acme", False)


# --- who is calling -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("naming:plain", "plain"),
        ("naming:a:b:c", "a:b:c"),
        ("naming:{tenant}", "acme"),
        ("naming:{subject}", "ci@acme.example"),
        ("naming:/run/{tenant}/{subject}.key", "/run/acme/ci@acme.example.key"),
        ("naming:{tenant}{tenant}", "acmeacme"),
        ("naming:$HOME/${tenant}/~", "$HOME/$acme/~"),
        ("naming:{{tenant}}", "{acme}"),
        ("naming: padded ", " padded "),
    ],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_reference_names_a_place(colour: str, reference: str, place: str) -> None:
    """What stands after the first colon goes to the provider, with the caller's names filled in and no more."""
    provider = Naming()
    caller = Caller(tenant="acme", subject="ci@acme.example")
    assert f"key of {place}".encode() == read(Secrets({"naming": provider}), colour, reference, caller).reveal()
    assert [place] == provider.asked


@pytest.mark.parametrize("colour", COLOURS)
def test_each_tenant_gets_its_own(colour: str) -> None:
    """The cache keeps them apart."""
    provider = Naming()
    tenants = ["a", "b", "a", "B", "a.b", "b"]
    got = read_all(
        Secrets({"naming": provider}), colour, [("naming:x-{tenant}", Caller(tenant=tenant)) for tenant in tenants]
    )
    assert [f"key of x-{tenant}".encode() for tenant in tenants] == [secret.reveal() for secret in got]
    assert provider.asked == ["x-a", "x-b", "x-B", "x-a.b"]


@pytest.mark.parametrize("name", ["acme", "A", "0", "a.b", "a_b-c", "ci@acme.example", "a" * 128, "acme-", "a."])
@pytest.mark.parametrize("field", ["tenant", "subject"])
def test_a_plain_name_is_filled_in(field: str, name: str) -> None:
    """Letters, digits and `. _ @ -`, at most 128."""
    caller = Caller(**{"tenant": "t", "subject": "s", field: name})
    secrets = Secrets({"naming": Naming()})
    assert f"key of /k/{name}".encode() == read(secrets, "sync", f"naming:/k/{{{field}}}", caller).reveal()


NOT_PLAIN = {
    "empty": "",
    "the folder above": "../x",
    "two dots": "..",
    "a dot": ".",
    "dots inside": "a..b",
    "hidden": ".ssh",
    "a path": "a/b",
    "an absolute path": "/etc/passwd",
    "a Windows path": "a\\b",
    "NUL": "\0",
    "NUL inside": "a\0b",
    "a newline at the end": "acme\n",
    "a newline": "a\nb",
    "a blank": "a b",
    "an option": "-rf",
    "a shell": "$(id)",
    "two commands": "a;id",
    "a quote": "a'b",
    "a wildcard": "a*",
    "a home": "~root",
    "percent-encoded": "a%2fb",
    "a fragment": "a#key",
    "another scheme": "env:HOME",
    "braces": "{subject}",
    "not ASCII": "ac\u00e9",
    "a wide slash": "a\uff0fb",
    "right to left": "a\u202eb",
    "a full-width digit": "\uff11",
    "too long": "a" * 129,
}


@pytest.mark.parametrize("name", NOT_PLAIN.values(), ids=NOT_PLAIN)
@pytest.mark.parametrize("field", ["tenant", "subject"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_name_that_could_lead_elsewhere_is_refused(colour: str, field: str, name: str) -> None:
    """No path, option or command can be built from who is calling; the provider is not even asked."""
    provider = Naming()
    caller = Caller(**{"tenant": "t", "subject": "s", field: name})
    told = refusal(Secrets({"naming": provider}), colour, f"naming:/k/{{{field}}}", caller)
    plain = f"the caller's {field} is not a plain name, so no secret is looked up for it"
    assert told == (plain if name else f"no {field} is named, and its secret is looked up by that")
    assert provider.asked == []


@pytest.mark.parametrize("name", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_name_that_is_not_filled_in_does_not_matter(name: str) -> None:
    """Tenants may be called anything where the secret is the same for all."""
    provider = Naming()
    read(Secrets({"naming": provider}), "sync", "naming:x", Caller(tenant=name, subject=name))
    assert provider.asked == ["x"]


FORGED = [
    ("/x?tenant=other", {}),
    ("/other/{tenant}?{tenant}=other", {}),
    ("/x", {"X-Tenant": "other", "Tenant": "other", "X-Forwarded-User": "other", "Cookie": "tenant=other"}),
    ("/x", {"Host": "other"}),
]


@pytest.mark.parametrize(("target", "headers"), FORGED)
def test_the_tenant_comes_from_the_token_and_nothing_else(target: str, headers: dict[str, str]) -> None:
    """Whatever a client writes into its request, the secret is that of the tenant to whom its token was issued."""
    sent: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200)

    with_proxy(
        lambda client: client.get(f"http://proxy/api{target}", headers=headers),
        credential=Bearer("naming:{tenant}/{subject}"),
        transport=httpx.MockTransport(upstream),
    )
    assert sent == ["Bearer key of acme/ci"]


def test_a_tenant_that_is_not_plain_gets_no_answer() -> None:
    """The request is refused as one whose secret cannot be had; the reason is in the audit record alone."""
    audit = MemoryAudit()
    answer = with_proxy(
        lambda client: client.get("http://proxy/api/x"),
        tenant="../x",
        audit=audit,
        credential=Bearer("naming:{tenant}"),
        transport=httpx.MockTransport(lambda _: httpx.Response(200)),
    )
    assert (answer.status_code, answer.headers["X-Proxy-Error"]) == (403, "no_secret_for_caller")
    assert "plain name" not in answer.text
    [record] = audit.records
    assert (record.code, record.reason, record.sent) == (
        "no_secret_for_caller",
        "the caller's tenant is not a plain name, so no secret is looked up for it",
        False,
    )


def with_proxy(
    call: Callable[[httpx.Client], httpx.Response], *, tenant: str = "acme", audit: Any = None, **terms: Any
) -> httpx.Response:
    """Call through a proxy whose one upstream is built on these terms."""
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", **terms)],
        rules=[Rule("all", effect="allow")],
        audit=audit or MemoryAudit(),
        secret_providers={"naming": Naming(), "fixed": FixedSecrets()},
    )
    token = proxy.tokens.issue(tenant=tenant, subject="ci").token
    with httpx.Client(transport=proxy.transport(token)) as client:
        answer = call(client)
    proxy.close()
    return answer


def test_the_host_applications_callers_are_verified_callers_too() -> None:
    """A tenant that the host application's session names is filled in like a token's."""
    sent: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200)

    class Session:
        @nonblocking
        def authenticate(self, presented: Any, request: Request) -> Caller:
            return Caller(tenant="hosted")

    proxy = Proxy(
        upstreams=[
            Upstream(
                "api",
                "https://api.example.com",
                credential=Bearer("naming:{tenant}"),
                transport=httpx.MockTransport(upstream),
            )
        ],
        rules=[Rule("all", effect="allow")],
        identity=Session(),
        audit=MemoryAudit(),
        secret_providers={"naming": Naming()},
    )
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/api/x", "HTTP_HOST": "app", "wsgi.url_scheme": "http"}
    answer = proxy.wsgi(environ, lambda *_: None)
    b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    proxy.close()
    assert sent == ["Bearer key of hosted"]


# --- malformed ------------------------------------------------------------------------------

_FORM = "a secret is named as scheme:place, for example env:API_KEY; schemes: env, exec, file, naming"
_KNOWN = "known: env, exec, file, naming"

MALFORMED = {
    "nothing": ("", _FORM),
    "a scheme": ("env", _FORM),
    "no place": ("env:", _FORM),
    "no scheme": (":KEY", f"secret reference …:… has an unknown scheme; {_KNOWN}"),
    "a colon": (":", _FORM),
    "a typo": ("evn:KEY", f"secret reference evn:… has an unknown scheme; did you mean env:? {_KNOWN}"),
    "an unknown scheme": ("vault:kv/x#y", f"secret reference vault:… has an unknown scheme; {_KNOWN}"),
    "upper case": ("ENV:KEY", f"secret reference …:… has an unknown scheme; {_KNOWN}"),
    "a blank first": (" env:KEY", f"secret reference …:… has an unknown scheme; did you mean env:? {_KNOWN}"),
    "a variable": ("$KEY", _FORM),
    "a URL": ("https://x", f"secret reference https:… has an unknown scheme; {_KNOWN}"),
    "an unknown field": (
        "env:{user}",
        "secret reference env:…: {user} is not known; use {tenant} or {subject}",
    ),
    "empty braces": ("env:{}", "secret reference env:…: {} is not known; use {tenant} or {subject}"),
    "an attribute": (
        "file:/k/{tenant.name}",
        "secret reference file:…: {tenant.name} is not known; use {tenant} or {subject}",
    ),
    "a conversion": (
        "file:/k/{tenant!r}",
        "secret reference file:…: {tenant!r} is not known; use {tenant} or {subject}",
    ),
    "a field in capitals": ("env:{TENANT}", "secret reference env:…: {TENANT} is not known; use {tenant} or {subject}"),
}


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_malformed_reference_is_refused_when_built(colour: str, malformed: str) -> None:
    """One sentence that says what to write instead, before any request."""
    reference, expected = MALFORMED[malformed]
    reader = all_providers().bind(ASYNC if colour == "async" else SYNC)
    with pytest.raises(ConfigurationError) as refused:
        reader.reader(reference)
    assert expected == str(refused.value)


@pytest.mark.parametrize(
    "secret",
    [TOKEN, f"AKIA:{TOKEN}", f"{TOKEN}:", f":{TOKEN}", f"123456:{TOKEN}", f"Bearer {TOKEN}", f"a b:{TOKEN}", TOKEN * 9],
)
def test_a_secret_in_the_place_of_its_reference_is_not_told(secret: str) -> None:
    """The commonest mistake of all is told without the secret in it."""
    with pytest.raises(ConfigurationError) as refused:
        all_providers().bind(SYNC).reader(secret)
    assert TOKEN not in str(refused.value)
    assert TOKEN[4:] not in str(refused.value)


@pytest.mark.parametrize("reference", [None, b"env:KEY"], ids=repr)
def test_a_reference_that_is_no_text_is_refused_when_built(reference: Any) -> None:
    """`Bearer(os.environ.get("KEY"))` is a mistake like the others, and told like them."""
    with pytest.raises(ConfigurationError, match="a secret is named as scheme:place"):
        Bearer(reference).bind(all_providers().bind(SYNC))


def test_a_mistake_is_told_when_the_proxy_is_mounted() -> None:
    """No request has to come for it."""
    upstream = Upstream("api", "https://api.example.com", credential=Bearer("evn:KEY"))
    proxy = Proxy(upstreams=[upstream], rules=[Rule("all", effect="allow")], audit=MemoryAudit())
    for mount in (lambda: proxy.asgi, lambda: proxy.wsgi, lambda: proxy.transport("atp_x")):
        with pytest.raises(ConfigurationError, match=r"secret reference evn:… has an unknown scheme; did you mean"):
            mount()
    proxy.close()
