"""`apitokenproxy demo`: it shows what it does, and notices when it does not."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import TOKEN, finished, run

from apitokenproxy import Header, Limit, Rule
from apitokenproxy.audit import JsonLines
from apitokenproxy.cli import demo
from apitokenproxy.identity.authority import TokenAuthority


def test_it_shows_each_side_and_ends_well(tmp_path: Path) -> None:
    """What the client sent, what the upstream received and the answers; nothing is left behind."""
    (tmp_path / "tmp").mkdir()
    done = run("demo", folder=tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert (done.code, done.err) == (0, "")
    assert re.findall(r"answer +(\d+)", done.out) == ["200", "200", "403", "403", "400", "429", "401"]
    assert "client got         tokens in, keys out\n" in done.out
    assert done.out.count("upstream received  GET") == 2
    assert done.out.count("the upstream received nothing") == 5
    promises = done.out.partition("\npromises\n")[2].partition("\n\n")[0].splitlines()
    assert len(promises) == 7
    assert all(line.startswith("  kept    ") for line in promises)
    assert max(len(line) for line in done.out.splitlines()[4:]) <= 100
    assert list((tmp_path / "tmp").iterdir()) == []
    # Key and token are shortened to what tells them apart.
    assert {len(found) for found in re.findall(r"real-(\w+)", done.out)} == {3}
    assert {len(found) for found in re.findall(r"atp_(\w+)", done.out)} == {4}
    assert TOKEN.search(done.out) is None


def _telling(world: Any, *call: str, send: Any = demo._send) -> Any:
    world.seen_by_client.append(world.upstream.key.encode())
    return send(world, *call)


def _more(make: Any, **more: Any) -> Any:
    return lambda name, **given: make(name, **given | more)


BREAKAGES = {
    "a limit that does not hold": ((demo, "Limit", _more(Limit, burst=60)), "expected           429 rate_limited"),
    "a rule that allows too much": ((demo, "Rule", _more(Rule, methods=None)), "expected           403 denied"),
    "a rule that allows too little": ((demo, "Rule", _more(Rule, effect="deny")), "expected           200"),
    "a revocation that is lost": (
        (TokenAuthority, "revoke", lambda _self, _token_id: None),
        "expected           401 unauthenticated",
    ),
    "a credential that does not arrive": (
        (demo, "Bearer", lambda reference: Header("X-Nowhere", reference)),
        "upstream received  GET /repos/acme/hello   Authorization: no key",
    ),
    "an audit that stays silent": (
        (JsonLines, "write", lambda *_: None),
        "BROKEN  each of the 9 calls has one audit record",
    ),
    "a client that was told the key": ((demo, "_send", _telling), "BROKEN  the client never saw the key"),
}


@pytest.mark.long
@pytest.mark.parametrize("what", BREAKAGES)
def test_it_notices_what_is_not_as_promised(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one thing broken it says where."""
    broken, told = BREAKAGES[what]
    monkeypatch.setattr(demo, "PATIENCE", 0.1)
    monkeypatch.setattr(*broken)
    assert demo.run(tmp_path) is False
    said = capsys.readouterr().out
    assert f"\n  {told}" in said
    assert "\n  BROKEN  " in said
    assert "Next:" not in said


@pytest.mark.long
def test_a_broken_promise_is_exit_code_1(tmp_path: Path) -> None:
    """So that a script notices as well."""
    program = """
import sys
from apitokenproxy.cli import demo, main
demo._search = lambda world: world.promise("one that is broken", False)
sys.argv = ["apitokenproxy", "demo"]
main()
"""
    done = finished([sys.executable, "-c", program], tmp_path)
    assert (done.code, done.err) == (1, "")
    assert "  BROKEN  one that is broken\n" in done.out
