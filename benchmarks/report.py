"""The figures of a run as a summary, as docs/benchmarks.md and as a plot."""

import statistics
from pathlib import Path
from typing import Any

MAIN = "https, 32 connections"


def middle(samples: list[dict[str, float]], key: str) -> float:
    return statistics.median(sample[key] for sample in samples)


def spread(samples: list[dict[str, float]], key: str) -> str:
    values = [sample[key] for sample in samples]
    return f"{min(values):,.0f} to {max(values):,.0f}" if len(values) > 1 else "one round"


def print_summary(results: dict[str, Any]) -> None:
    """Print requests a second and CPU of everybody, beside the first."""
    contenders = results["contenders"]
    first = next(iter(contenders))
    for name, found in contenders.items():
        for case, samples in found.items():
            if isinstance(samples, list) and case in contenders[first]:
                rate, cpu = middle(samples, "rate"), middle(samples, "cpu")
                times = middle(contenders[first][case], "rate") / rate if rate else float("inf")
                print(f"{case:>24} {name:<32} {rate:>9,.0f}/s {cpu:>8,.0f} µs CPU   {first} has {times:.2f}x the rate")


def table(head: list[str], lines: list[list[str]]) -> str:
    aligned = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", aligned, *("| " + " | ".join(line) + " |" for line in lines)])


def ranked(contenders: dict[str, Any], case: str) -> list[tuple[str, Any]]:
    """Return who was measured in a case, the fastest first."""
    measured = [(name, found) for name, found in contenders.items() if case in found]
    return sorted(measured, key=lambda pair: -middle(pair[1][case], "rate"))


def write(results: dict[str, Any], folder: Path) -> None:
    """Write benchmarks.md and the plot, as PNG and SVG."""
    contenders = results["contenders"]
    ours = next(iter(contenders))
    base = middle(contenders[ours][MAIN], "rate")
    (folder / "benchmarks.md").write_text(
        "\n\n".join(
            [
                INTRODUCTION,
                "![Requests a second and CPU a request](benchmarks.svg)",
                "## The same work, 32 connections, https upstream",
                main_table(contenders, ours, base),
                *skipped(results["skipped"]),
                "## More and fewer connections, and plain http",
                connections_table(contenders),
                "## Bodies",
                BODIES,
                bodies_table(contenders),
                "## Streams",
                STREAMS,
                table(
                    ["proxy", "ms late, median"],
                    [
                        [name, "no event came" if late is None else f"{late:.2f}"]
                        for name, late in sorted(results["events"].items(), key=lambda pair: pair[1] or 1e9)
                    ],
                ),
                "## Added latency, memory, workers",
                *others(results, ours),
                "## Machine and versions",
                "\n".join(f"- {name}: {version}" for name, version in results["versions"].items()),
            ]
        )
        + "\n"
    )
    plot(contenders, folder)


def main_table(contenders: dict[str, Any], ours: str, base: float) -> str:
    lines = []
    for name, found in ranked(contenders, MAIN):
        samples = found[MAIN]
        rate = middle(samples, "rate")
        lines.append(
            [
                f"**{name}**" if name.startswith("apitokenproxy") else name,
                f"{rate:,.0f}",
                spread(samples, "rate"),
                f"{base / rate:.2f}",
                f"{middle(samples, 'cpu'):,.0f}",
                f"{middle(samples, 'p50'):.1f}",
                f"{middle(samples, 'p99'):.1f}",
                f"{middle(samples, 'memory'):.0f}",
                f"{found['cold_start']:.2f}",
            ]
        )
    head = ["proxy", "requests/s", "spread", f"{ours} has x times", "CPU µs/request", "p50 ms", "p99 ms"]
    return table([*head, "memory MiB", "cold start s"], lines)


def connections_table(contenders: dict[str, Any]) -> str:
    cases = ["https, 1 connection", MAIN, "https, 128 connections", "https, 500 connections", "https, 1000 connections"]
    cases = [case for case in [*cases, "http, 32 connections"] if any(case in found for found in contenders.values())]
    lines = []
    for name, found in ranked(contenders, MAIN):
        cells = []
        for case in cases:
            samples = found.get(case)
            failed = sum(sample["failed"] for sample in samples or ())
            told = f"{middle(samples, 'rate'):,.0f}/s, p99 {middle(samples, 'p99'):.1f} ms" if samples else "-"
            cells.append(told + (f", {failed:.0f} failed" if failed else ""))
        lines.append([name, *cells])
    return table(["proxy", *cases], lines)


def bodies_table(contenders: dict[str, Any]) -> str:
    cases = {
        f"{size} {way}": megabytes
        for way in ("down", "up")
        for size, megabytes in (("16 KB", 1 / 64), ("1 MB", 1.0), ("100 MB", 100.0))
        if any(f"{size} {way}" in found for found in contenders.values())
    }
    lines = []
    for name, found in ranked(contenders, "1 MB down"):
        cells = []
        for case, megabytes in cases.items():
            samples = found.get(case)
            if not samples or not middle(samples, "rate"):
                cells.append("-")
                continue
            cpu = middle(samples, "cpu")
            a_core = f"{megabytes / cpu * 1e6:,.0f}" if cpu else "-"
            failed = sum(sample["failed"] for sample in samples)
            told = f"{megabytes * middle(samples, 'rate'):,.0f} ({a_core})"
            cells.append(f"{failed} failed" if failed else told)
        lines.append([name, *cells])
    return table(["proxy", *cases], lines)


def skipped(reasons: dict[str, str]) -> list[str]:
    if not reasons:
        return []
    return [
        "Not measured: "
        + "; ".join(f"{name} ({reason.partition('; see')[0]})" for name, reason in reasons.items())
        + "."
    ]


def others(results: dict[str, Any], ours: str) -> list[str]:
    direct = statistics.median(found["p50"] for found in results["direct"])
    through = middle(results["contenders"][ours]["https, 1 connection"], "p50")
    told = [f"One connection, median: {direct:.2f} ms without a proxy, {through:.2f} ms through {ours}."]
    for name, memory in results["memory"].items():
        if memory:
            told.append(
                f"{name}: {memory['idle']:.0f} KiB for a kept-alive client connection with its upstream's, "
                f"{memory['running']:.0f} KiB for a running exchange."
            )
    one, two = (statistics.median(results["workers"][count]) for count in ("1", "2"))
    told.append(
        f"`apitokenproxy serve`, sharing both cores with load and upstream: {one:,.0f} requests/s with one worker, "
        f"{two:,.0f} with two."
    )
    return told


def plot(contenders: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - a short run does without it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    order = ranked(contenders, MAIN)[::-1]
    names = [name for name, _ in order]
    colours = ["#d9480f" if name.startswith("apitokenproxy") else "#868e96" for name in names]
    figure, axes = plt.subplots(1, 2, figsize=(13, 0.36 * len(names) + 1.6), sharey=True)
    for axis, key, title in (
        (axes[0], "rate", "requests a second on one core (more is better)"),
        (axes[1], "cpu", "µs of CPU a request (less is better)"),
    ):
        values = [middle(found[MAIN], key) for _, found in order]
        axis.barh(names, values, color=colours)
        axis.set_xscale("log")
        axis.set_title(f"{title}, logarithmic", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        for row, value in enumerate(values):
            axis.annotate(f" {value:,.0f}", (value, row), va="center", fontsize=8)
        axis.margins(x=0.15)
    figure.suptitle("Token check, key injection, forwarding 1 KB of JSON; https upstream, 32 connections", fontsize=11)
    figure.tight_layout()
    for kind in ("png", "svg"):
        figure.savefig(folder / f"benchmarks.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


INTRODUCTION = """# Benchmarks

What this proxy costs, beside others that do the same work: check a client's token, put the real key on, forward \
a request for 1 KB of JSON to an https upstream. apitokenproxy does it with everything on: tokens in SQLite, rules, \
a rate and a concurrency limit, the audit file. The others check a token and put a key on, and no more, unless the \
table says otherwise.

Every proxy has one worker on one core; the load (wrk) and the upstream (nginx) share the other. Each round measures \
everybody once, so that a slow moment of the machine falls on all; the figures are medians of the rounds. CPU is \
that of the proxy's processes, user and system. To run it yourself, on loopback only, with what is missing fetched \
from PyPI, npm and (as root) Debian:

<!-- not run: half an hour, with the machine to itself -->
```sh
uv run --group benchmarks python benchmarks/forwarding.py          # all of it: half an hour; writes this page
uv run python benchmarks/forwarding.py --short                     # a minute
uv run python benchmarks/stages.py                                 # each stage of the pipeline, in µs
uv run python benchmarks/pipeline.py                               # the pipeline without forwarding
```"""

BODIES = "MB/s, and in brackets MB for each second of the proxy's CPU. Eight connections; one where a body has 100 MB."
STREAMS = "An event every 20 ms; by how much the client sees it later than it was sent."

if __name__ == "__main__":
    import json
    import sys

    write(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
