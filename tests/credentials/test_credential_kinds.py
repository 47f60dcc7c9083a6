"""Each kind of credential: the exact bytes that it puts on a request, and the version that audit records name."""

import asyncio
import base64
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from credential_calls import ACME, COLOURS, call, credential, credentials, plain
from hypothesis import given
from hypothesis import strategies as st

from apitokenproxy import Basic, Bearer, Caller, Credential, Header, Query, Secret, nonblocking
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.messages import Hidden
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedCredential

KEY = "fixed:key"

# The Basic rows of RFC 7617, sections 2 and 2.1, and of Stripe's documentation (the key, no password).
HEADERS = {
    "bearer": (Bearer(KEY), "ghp_abc", b"Authorization", b"Bearer ghp_abc"),
    "bearer, RFC 6750": (Bearer(KEY), "mF_9.B5f-4.1JqM", b"Authorization", b"Bearer mF_9.B5f-4.1JqM"),
    "bearer, base64": (Bearer(KEY), "a+/b==", b"Authorization", b"Bearer a+/b=="),
    "bearer, not ASCII": (Bearer(KEY), "\u00fc", b"Authorization", b"Bearer \xc3\xbc"),
    "basic, RFC 7617": (
        Basic(KEY, username="Aladdin"),
        "open sesame",
        b"Authorization",
        b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
    ),
    "basic, RFC 7617, UTF-8": (Basic(KEY, username="test"), "123\u00a3", b"Authorization", b"Basic dGVzdDoxMjPCow=="),
    "basic, Stripe": (Basic(KEY), "sk_test_abc", b"Authorization", b"Basic c2tfdGVzdF9hYmM6"),
    "basic, a colon in the password": (Basic(KEY, username="a"), "b:c", b"Authorization", b"Basic YTpiOmM="),
    "basic, a name in UTF-8": (Basic(KEY, username="\u00fc"), "b", b"Authorization", b"Basic w7w6Yg=="),
    "basic, blanks": (Basic(KEY, username=" a "), " b ", b"Authorization", b"Basic IGEgOiBiIA=="),
    "header": (Header("X-Api-Key", KEY), "abc", b"X-Api-Key", b"abc"),
    "header, its case": (Header("x-aPI-kEY", KEY), "abc", b"x-aPI-kEY", b"abc"),
    "header, before": (
        Header("Authorization", KEY, template="DeepL-Auth-Key {secret}"),
        "abc:fx",
        b"Authorization",
        b"DeepL-Auth-Key abc:fx",
    ),
    "header, around": (
        Header("Authorization", KEY, template='Token token="{secret}", v=1'),
        "abc",
        b"Authorization",
        b'Token token="abc", v=1',
    ),
    "header, braces": (Header("X-Key", KEY, template='{"k":"{secret}"}'), "{0}", b"X-Key", b'{"k":"{0}"}'),
    "header, a secret like a template": (Header("X-Key", KEY), "{secret}%s$1\\1", b"X-Key", b"{secret}%s$1\\1"),
    "header, a token's characters": (Header("X!#$%&'*+.^`|~-9", KEY), "abc", b"X!#$%&'*+.^`|~-9", b"abc"),
    "header, a cookie": (Header("Cookie", KEY, template="session={secret}"), "abc", b"Cookie", b"session=abc"),
}

PARAMETERS = {
    "plain": ("key", "AIzaSy-abc_123.~", b"AIzaSy-abc_123.~"),
    "a separator": ("key", "a&admin=1", b"a%26admin%3D1"),
    "another separator": ("key", "a;b", b"a%3Bb"),
    "a fragment": ("key", "a#b", b"a%23b"),
    "a query": ("key", "a?b", b"a%3Fb"),
    "a slash": ("key", "a/b", b"a%2Fb"),
    "a plus": ("key", "a+b", b"a%2Bb"),
    "a blank": ("key", " a b ", b"%20a%20b%20"),
    "a percent sign": ("key", "a%20b", b"a%2520b"),
    "base64": ("key", "a+/b==", b"a%2B%2Fb%3D%3D"),
    "quotes": ("key", "\"'<>", b"%22%27%3C%3E"),
    "not ASCII": ("key", "\u00fc", b"%C3%BC"),
    "a name with dots": ("api.key_v-1~x", "a", b"a"),
}


@pytest.mark.parametrize("row", HEADERS)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_exact_bytes_of_a_header(colour: str, row: str) -> None:
    """One field, its name in the case in which it was written, and nothing else."""
    kind, material, name, value = HEADERS[row]
    made = credential(colour, kind, key=material)
    assert ([(name, value)], []) == (plain(made.headers), plain(made.query))


@pytest.mark.parametrize("row", PARAMETERS)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_exact_bytes_of_a_parameter(colour: str, row: str) -> None:
    """Percent-encoded (RFC 3986, section 2.3: all but letters, digits and `- . _ ~`), and nothing else."""
    name, material, value = PARAMETERS[row]
    made = credential(colour, Query(name, KEY), key=material)
    assert ([], [(name.encode(), value)]) == (plain(made.headers), plain(made.query))


class Held:
    """A provider that returns the very secret that it holds."""

    ttl = 0.0

    def __init__(self, secret: Secret) -> None:
        self.secret = secret

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        return self.secret


MATERIAL = st.binary(min_size=1, max_size=60).filter(lambda raw: not any(byte < 32 or byte == 127 for byte in raw))


@given(MATERIAL)
def test_a_parameter_decodes_to_the_secret(material: bytes) -> None:
    """Whatever the secret is, it is one parameter, in visible ASCII without separators."""
    [made] = credentials(Secrets({"fixed": Held(Secret(material))}), "sync", Query("key", KEY), callers=[ACME])
    [(_, value)] = made.query
    assert material == unquote_to_bytes(value)
    assert set(value) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%")


@given(MATERIAL)
def test_basic_decodes_to_the_secret(material: bytes) -> None:
    """Whatever the secret is, name and password are told apart by the first colon."""
    [made] = credentials(Secrets({"fixed": Held(Secret(material))}), "sync", Basic(KEY, username="me"), callers=[ACME])
    [(_, value)] = made.headers
    name, _, password = base64.b64decode(value.removeprefix(b"Basic "), validate=True).partition(b":")
    assert (b"me", material) == (name, password)


@pytest.mark.parametrize("colour", COLOURS)
def test_several_are_put_on_in_order(colour: str) -> None:
    """Each from its own secret; the versions are listed in the same order."""
    made = credential(
        colour,
        Header("X-Partner", "fixed:partner"),
        Query("key", "fixed:key"),
        Bearer("fixed:token"),
        Query("sig", "fixed:sig"),
        partner="p",
        key="k k",
        token="t",
        sig="s/s",
    )
    assert plain(made.headers) == [(b"X-Partner", b"p"), (b"Authorization", b"Bearer t")]
    assert plain(made.query) == [(b"key", b"k%20k"), (b"sig", b"s%2Fs")]
    assert re.fullmatch(r"(fixed#[0-9a-f]{12},?){4}", made.version)


@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_made_is_what_is_sent(colour: str) -> None:
    """The upstream gets these bytes, once, in the place of whatever the client sent there."""
    exchange = call(
        colour,
        [
            Basic("fixed:a", username="me"),
            Header("X-Key", "fixed:b", template="Key {secret}"),
            Query("key", "fixed:c"),
            FixedCredential("X-Own", "own"),
        ],
        "/x?q=1",
        a="pass word",
        b="b&b",
        c="c&c=c",
    )
    [sent] = exchange.sent
    assert (sent.target, exchange.answer.status_code) == (b"/x?q=1&key=c%26c%3Dc", 200)
    assert [sent.values(name) for name in (b"authorization", b"x-key", b"x-own")] == [
        [b"Basic bWU6cGFzcyB3b3Jk"],
        [b"Key b&b"],
        [b"own"],
    ]
    assert re.fullmatch(r"(fixed#[0-9a-f]{12},){3}fixed", exchange.record.credential)


# --- secrets that cannot be sent ------------------------------------------------------------

KINDS = {
    "bearer": Bearer(KEY),
    "basic": Basic(KEY),
    "basic with a name": Basic(KEY, username="me"),
    "header": Header("X-Key", KEY),
    "query": Query("key", KEY),
}


@pytest.mark.parametrize(
    "material", ["", "a\n", "a\r\nX-Admin: 1", "a\r", "a\0", "a\tb", "\x1b[0m", "a\x7f"], ids=ascii
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_secret_with_a_control_character_is_never_sent(colour: str, kind: str, material: str) -> None:
    """Neither as a header, where it could make a second one, nor encoded: it is a mistake wherever it goes."""
    exchange = call(colour, KINDS[kind], key=material)
    assert (exchange.answer.status_code, exchange.record.code) == (503, "secret_unavailable")
    assert exchange.sent == []


@pytest.mark.parametrize(
    ("kind", "material"),
    [("bearer", "a "), ("bearer", " "), ("header", " a"), ("header", "a "), ("header", " ")],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_secret_with_a_blank_at_its_end_is_no_header(colour: str, kind: str, material: str) -> None:
    """A field's value neither begins nor ends with one (RFC 9110, section 5.5); it is the operator's mistake.

    The forwarder cannot send it, and the caller must not be told that its own headers are malformed.
    """
    exchange = call(colour, KINDS[kind], key=material)
    assert (exchange.answer.status_code, exchange.record.code) == (503, "secret_unavailable")
    assert exchange.sent == []


# --- versions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_credential_carries_its_secrets_version(colour: str, kind: str) -> None:
    """So that an audit record tells which secret was used, without telling anything about it."""
    provider = Held(Secret("abc", version="vault/7"))
    exchange = call(colour, KINDS[kind], providers={"fixed": provider})
    assert re.fullmatch(r"vault/7#[0-9a-f]{12}", exchange.record.credential)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_renewed_secret_makes_a_new_credential(colour: str) -> None:
    """The credential is made once for each secret and kept while the secret is the same."""
    provider = Held(Secret("old"))
    secrets = Secrets({"fixed": provider})
    made: list[Credential] = []
    obtain = Bearer(KEY).bind(secrets.bind(SYNC))
    for material in ("old", "old", "new", "new", "old"):
        provider.secret = Secret(material)
        made.append(run(_awaited(obtain(ACME))))
    assert [bytes(one.headers[0][1]) for one in made] == [
        b"Bearer old",
        b"Bearer old",
        b"Bearer new",
        b"Bearer new",
        b"Bearer old",
    ]
    assert [made[0], made[0], made[2], made[2], made[4]] == made
    assert [made[0] is made[1], made[2] is made[3], made[0] is made[4]] == [True, True, False]
    old, new = made[0].version, made[2].version
    assert ([one.version for one in made], old != new) == ([old, old, new, new, old], True)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class PerTenant:
    ttl = 60.0

    def fetch(self, reference: str) -> Secret:
        return Secret(f"key-of-{reference}")


@pytest.mark.parametrize("kind", [Bearer("own:{tenant}"), Basic("own:{tenant}"), Query("k", "own:{tenant}")], ids=repr)
@pytest.mark.parametrize("colour", COLOURS)
def test_tenants_never_get_each_others_credential(colour: str, kind: Any) -> None:
    """In whichever order they come, and also when they come at once."""
    callers = [Caller(tenant=tenant) for tenant in "abacbbaac"]
    secrets = Secrets({"own": PerTenant()})
    in_turn = credentials(secrets, colour, kind, callers=callers)
    alone = {
        caller.tenant: credentials(Secrets({"own": PerTenant()}), colour, kind, callers=[caller])[0]
        for caller in callers
    }
    expected = [plain((*alone[caller.tenant].headers, *alone[caller.tenant].query)) for caller in callers]
    assert expected == [plain((*made.headers, *made.query)) for made in in_turn]
    assert len({str(row) for row in expected}) == 3


def test_tenants_at_once_never_get_each_others_credential() -> None:
    """A hundred tasks of one loop, each with its own tenant."""

    async def ask() -> list[bytes]:
        obtain = Bearer("own:{tenant}").bind(Secrets({"own": PerTenant()}).bind(ASYNC))
        made = await asyncio.gather(*(obtain(Caller(tenant=f"t{number % 10}")) for number in range(100)))
        return [bytes(one.headers[0][1]) for one in made]

    assert [f"Bearer key-of-t{number % 10}".encode() for number in range(100)] == asyncio.run(ask())


# --- a provider of one's own ----------------------------------------------------------------


class Stamped:
    @nonblocking
    def credential(self, caller: Caller) -> Credential:
        return Credential(headers=((b"X-Stamp", Hidden(caller.tenant.encode())),), version="stamp")


class StampedAsync:
    async def credential(self, caller: Caller) -> Credential:
        await asyncio.sleep(0)
        return Stamped().credential(caller)


class StampedPlain:
    def credential(self, caller: Caller) -> Credential:
        return Stamped().credential(caller)


@pytest.mark.parametrize(
    ("colour", "provider"),
    [("async", StampedAsync), *[(colour, each) for colour in COLOURS for each in (Stamped, StampedPlain)]],
)
def test_a_token_provider_of_ones_own_stands_beside_the_built_in_kinds(colour: str, provider: Any) -> None:
    """Written in any of the three ways, it gets the verified caller."""
    exchange = call(colour, [provider(), Query("key", KEY)], key="k")
    [sent] = exchange.sent
    assert (sent.values(b"x-stamp"), sent.target) == ([b"acme"], b"/x?key=k")
    assert re.fullmatch("stamp,fixed#[0-9a-f]{12}", exchange.record.credential)


@pytest.mark.parametrize("result", [None, True, b"X: y", {"X": "y"}, ()], ids=repr)
@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_no_credential_is_not_sent(colour: str, result: Any) -> None:
    """A request without its credential does not leave."""

    class Forgetful:
        @nonblocking
        def credential(self, caller: Caller) -> Any:
            return result

    exchange = call(colour, Forgetful())
    assert (exchange.answer.status_code, exchange.record.code, exchange.sent) == (503, "internal_fault", [])
