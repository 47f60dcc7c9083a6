"""A process that changes tokens is killed at any moment: the store opens, and holds no half of anything."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

KILLS = 100
WORKING = """
import sys
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
tokens = TokenAuthority(open_store(sys.argv[1]), Verified(bound=1.0))
def told(step, identifier):
    sys.stdout.write(f"{step} {identifier}\\n")
    sys.stdout.flush()
while True:
    issued = tokens.issue(tenant=sys.argv[2])
    told("issue", issued.id)
    tokens.rotate(issued.id, key="the key")
    told("rotate", issued.id)
    tokens.revoke(issued.id)
    told("revoke", issued.id)
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_killed_at_any_moment(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each step is there whole or not at all; what was reported done is done; a retry with its key completes."""
    if kind == "sqlite":
        url, kills = f"sqlite:///{tmp_path}/tokens.db", KILLS
    else:
        new: Callable[[], str] = request.getfixturevalue("new_postgres")
        url, kills = new(), KILLS // 4
    seed = random.randrange(2**32)  # noqa: S311 - not for secrets
    moments = random.Random(seed)  # noqa: S311
    cut = dict.fromkeys(("issue", "rotate", "revoke"), 0)
    for number in range(kills):
        command = [sys.executable, "-c", WORKING, url, f"t{number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(moments.uniform(0, 0.05))
            child.kill()
            whole, _, _ = (first + child.stdout.read()).rpartition("\n")  # it may have been killed within a line
            reported = [line.split() for line in whole.splitlines()]
        store = open_store(url)  # looks whether the file is whole
        authority = TokenAuthority(store, Verified(bound=1.0))
        tokens = {token.id: token for token in store.list(f"t{number}")}
        for identifier, token in tokens.items():
            done = [event.action for event in store.events(identifier)]
            assert done == ["issue", "rotate", "revoke"][: len(done)], f"seed {seed}"
            assert len(token.generations) == (1 if len(done) == 1 else 2), f"seed {seed}"
            assert sum(one.replaced is None for one in token.generations) == 1, f"seed {seed}"
            assert (token.revoked is not None) == (len(done) == 3), f"seed {seed}"
        for step, identifier in reported:
            assert step in [event.action for event in store.events(identifier)], f"seed {seed}"
        last = max(tokens.values(), key=lambda token: token.created)
        again = authority.rotate(last.id, key="the key")
        assert (again.generation, len(authority.get(last.id).generations)) == (2, 2), f"seed {seed}"
        cut["rotate" if again.token else "revoke" if last.revoked is None else "issue"] += 1
        store.close()
    print(f"{kills} kills; what was cut off next: {cut}")  # noqa: T201 - `pytest -rP` shows it
