"""What checking a token costs: `uv run python benchmarks/tokens.py`.

A verified token (the hot path), a token that must be looked up among a thousand and among a million, and the
memory that a hundred thousand unknown tokens leave behind. Everything in SQLite on a real disk; CPU times, best
of many interleaved rounds.
"""

import argparse
import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from apitokenproxy._colour import SYNC, run
from apitokenproxy.errors import Unauthenticated
from apitokenproxy.identity import rows, tables
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.format import digest, mint
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken
from apitokenproxy.messages import Hidden, Presented, Request

ROUNDS = 40
BATCH = 10_000


def fill(store: SqlStore, count: int) -> list[str]:
    """Add so many tokens, fast, and return a thousand of them."""
    now = datetime.now(UTC)
    kept: list[str] = []
    for start in range(0, count, BATCH):
        made = [mint() for _ in range(min(BATCH, count - start))]
        stored = [
            rows.of(StoredToken(name, "acme", now, generations=(Generation(1, digest(token.encode()), now),)))
            for name, token in made
        ]
        with store._connection() as connection:  # noqa: SLF001
            connection.execute(tables.TOKENS.insert(), [row for row, _ in stored])
            connection.execute(tables.GENERATIONS.insert(), [row for _, several in stored for row in several])
            connection.commit()
        kept += [token for _, token in made[: max(1, 1000 * BATCH // count)]]
        print(f"\r  {start + len(made):,} of {count:,} tokens", end="", flush=True)
    print()
    return kept[:1000]


def timed(call: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - began) / times


def in_turn(ask: Callable[..., Any], every: Iterator[Presented], request: Request) -> None:
    run(ask(next(every), request))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=1_000_000, help="how many live tokens; 1,000,000")
    options = parser.parse_args()
    request = Request(b"GET", b"/", [])
    with tempfile.TemporaryDirectory() as folder:
        stores = {count: SqlStore(f"sqlite:///{Path(folder)}/{count}.db") for count in (1000, options.many)}
        tokens = {count: fill(store, count) for count, store in stores.items()}
        misses = {
            count: ClientTokens(store, Verified(bound=0.0)).bind(SYNC).authenticate for count, store in stores.items()
        }
        token = TokenAuthority(stores[1000], Verified(bound=1.0)).issue(tenant="acme").token
        hit = ClientTokens(stores[1000], Verified(bound=3600.0)).bind(SYNC).authenticate
        presented = Presented("bearer", Hidden(token.encode()))
        best: dict[str, float] = {}
        for number in range(ROUNDS):
            found = {"verified": timed(lambda: run(hit(presented, request)), 2000)}
            for count, ask in misses.items():
                every = [Presented("bearer", Hidden(one.encode())) for one in tokens[count][number::ROUNDS]]
                found[f"looked up among {count:,}"] = timed(partial(in_turn, ask, iter(every), request), len(every))
            best = {name: min(best.get(name, math.inf), value) for name, value in found.items()}
        for name, value in best.items():
            print(f"{name:<28} {value:8.2f} µs")
        print(f"a million to a thousand      {list(best.values())[2] / list(best.values())[1]:8.2f} x")

        gc.collect()
        before = psutil.Process().memory_info().rss
        for _ in range(100_000):
            unknown = Presented("bearer", Hidden(mint()[1].encode()))
            try:
                run(hit(unknown, request))
            except Unauthenticated:
                continue
        gc.collect()
        grown = (psutil.Process().memory_info().rss - before) / 1024**2
        print(f"100,000 unknown tokens leave {grown:8.2f} MiB")
        for store in stores.values():
            store.close()


if __name__ == "__main__":
    main()
