"""What proves a candidate and what does not: errors that any client can bring about, challenges, threads."""

import sys
import threading
import time

import httpx
import pytest
from rotation_calls import BAD, COLOURS, NEW, OLD, Deciding, by_key

from apitokenproxy import Bearer, HttpxAuth


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was read or noted a moment ago be read and noted again."""
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.versions._EVERY", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.records.FRESH", 0.0)


@pytest.mark.parametrize("status", [400, 404])
def test_what_may_be_a_refusal_proves_nothing_and_no_client_sees_it(colour: str, status: int) -> None:
    """Some say 400 of a key that they do not know, some hide from it that a thing is there: it is sent again."""
    one = Deciding(colour, by_key(old=200, bad=status), candidate=Bearer("places:bad"))
    assert one.asks(4) == [200] * 4
    assert one.seen == [BAD, OLD] * 4
    assert one.records() == []


@pytest.mark.parametrize("status", [404, 405, 409, 422, 429, 500])
def test_an_error_does_not_prove_it(colour: str, status: int) -> None:
    """Else any client could have a bad one promoted, by asking for what is not there."""
    one = Deciding(colour, by_key(old=status, bad=status), candidate=Bearer("places:bad"))
    assert one.asks(4) == [status] * 4
    assert one.records() == []


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_error_for_the_current_one_does_not_take_it_back(colour: str, status: int) -> None:
    """Only an answer below 400 says that the upstream accepted what it was sent the second time."""
    one = Deciding(colour, by_key(old=status, new=403))
    assert one.asks(1) == [status]
    assert one.seen == [NEW, OLD]
    assert one.records() == []


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_error_for_the_candidate_does_not_make_it_take_over(colour: str, status: int) -> None:
    """Nobody knows whether it is any better than the current one, which is refused."""
    one = Deciding(colour, by_key(old=401, bad=status), candidate=Bearer("places:bad"), rotation={"share": 0.0})
    assert one.asks(1) == [status]
    assert one.records() == []


def test_a_refused_candidate_gives_way_to_what_the_request_would_have_begun_with(
    colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is the previous one, because the current one fails."""
    drawn = iter([0.9, 0.9, 0.1])
    monkeypatch.setattr("random.random", lambda: next(drawn))
    one = Deciding(
        colour,
        by_key(old=200, new=401, bad=401),
        credential=Bearer("places:next"),
        previous=Bearer("places:key"),
        candidate=Bearer("places:bad"),
        rotation={"share": 0.5},
    )
    assert one.asks(3) == [200] * 3
    assert one.seen == [NEW, OLD, OLD, BAD, OLD]


def test_a_live_one_that_answers_challenges_is_no_way_back_from_a_candidate(colour: str) -> None:
    """It may need two requests itself, and there is one left: its share of the traffic proves nothing then."""

    def digest_alone(request: httpx.Request, _key: str) -> httpx.Response:
        if request.headers.get("authorization", "").startswith("Digest "):
            return httpx.Response(200)
        challenge = f'Digest realm="r", nonce="{time.time_ns()}", qop="auth", algorithm=SHA-256'
        return httpx.Response(401, headers={"www-authenticate": challenge})

    digest = HttpxAuth(lambda key: httpx.DigestAuth("me", key), secret="places:key")
    one = Deciding(colour, digest_alone, credential=digest)
    assert one.asks(4) == [200] * 4


def test_a_probe_counts_a_refusal_only_where_the_current_one_is_accepted(colour: str) -> None:
    """An upstream that is down for the one takes nothing back from the other."""
    one = Deciding(colour, by_key(old=500, new=401), rotation={"share": 0.0, "probe": "/me"})
    one.asks(2, pause=0.1)
    if colour == "sync":
        one.proxy.versions.probe("api")
    assert one.records() == []


def test_one_probe_at_a_time() -> None:
    """However long the upstream takes to answer them: they would hold its connections."""
    more = threading.Event()
    probes: list[str] = []

    def slow(request: httpx.Request, key: str) -> httpx.Response:
        if request.url.path == "/probe":
            probes.append(key)
            more.wait(10)
        return httpx.Response(200)

    one = Deciding("sync", slow, rotation={"share": 0.0, "probe": "/probe"})
    with httpx.Client(transport=one.proxy.transport(one.token)) as client:
        for _ in range(5):
            assert client.get("http://proxy/api/x").status_code == 200
        more.set()
    assert len(probes) <= 1


def test_many_threads_count_what_was_accepted() -> None:
    """One of them takes note of what the others counted; the others just go on."""
    one = Deciding("sync", by_key(new=200), rotation={"successes": 1, "automatic": False})
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    found = []
    try:
        with httpx.Client(transport=one.proxy.transport(one.token)) as client:

            def ask() -> None:
                found.extend(client.get("http://proxy/api/x").status_code for _ in range(100))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == [200] * 400


def test_without_a_thread_to_be_had_requests_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate is not worth a request: it is proven another time, and what is learned holds in this process."""
    one = Deciding("sync", by_key(old=200, new=401), rotation={"share": 0.0, "probe": "/me"})
    assert one.asks(1) == [200]

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert one.asks(2) == [200] * 2
    monkeypatch.setattr("random.random", lambda: -1.0)
    assert one.asks(2) == [200] * 2


def test_one_tenants_candidate_has_nobody_look_for_theirs_all_the_time(colour: str) -> None:
    """After one was promoted there may still be none for another tenant, whose requests go on as before."""
    one = Deciding(colour, by_key(new=200), candidate=Bearer("places:{tenant}"), rotation={"share": 0.0})
    one.places.material |= {"other": BAD, "key": NEW}
    one.proxy.versions.promote("api", tenant="other")
    assert one.asks(5) == [200] * 5
    assert one.places.fetched.count("acme") == 1
    one.places.material["acme"] = NEW
    assert one.asks(1) == [200]
