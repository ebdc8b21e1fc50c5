#!/usr/bin/python3
"""Whether the hot path has become dearer: `make bench-check`, to be run before a change to it is called done.

Two short runs of the core and the queue path. In one the daemons and Redis run under valgrind's callgrind: instructions and
system calls per command, which a busy machine does not change. In the other they run at full speed beside the floor: CPU time
per command as a share of the floor's, which sees the kernel and PostgreSQL too, but only coarsely. Compares with what
bench/check.json has recorded and exits 1 naming what got worse; `make bench-check RECORD=1` records anew."""
import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import callgrind, check_counts, check_ratios, report  # noqa: E402
from measure.progress import Progress  # noqa: E402

RECORDED = os.path.join(HERE, "check.json")
REGISTERED, COUNTED_DEVICES, DEVICES, ROUNDS = 50000, 300, 3000, 6

# How much worse a figure may be before it is called so, with what it counts: more than three times the largest distance from
# the median in eight runs of one build on a machine with five times as much to do as it has cores, and more than what lies
# between such a machine and a quiet one. That is least where commands alone are counted. Where the core path's batch is
# small, dispatcher and Redis also follow the clock, and CPU time follows the caches: the queue path's counts are where their
# work shows.
FIGURES = {
    "connect_worker_instructions": (0.01, "worker, instructions a connect over TLS"),
    "core_worker_instructions": (0.01, "worker, instructions a command"),
    "core_worker_syscalls": (0.02, "worker, system calls a command"),
    "core_dispatcher_instructions": (0.20, "dispatcher, instructions a command"),
    "core_redis_instructions": (0.60, "Redis, instructions a command"),
    "core_worker_to_floor": (0.25, "worker, CPU time to the floor's"),
    "core_stores_to_floor": (0.60, "dispatcher, Redis, PostgreSQL, CPU time to the floor's"),
    "lean_worker_instructions": (0.01, "worker, instructions a command"),
    "lean_worker_syscalls": (0.02, "worker, system calls a command"),
    "queue_worker_instructions": (0.10, "worker, instructions a command"),
    "queue_dispatcher_instructions": (0.04, "dispatcher, instructions a command"),
    "queue_redis_instructions": (0.04, "Redis, instructions a command"),
    "queue_pg_wal_bytes": (0.02, "PostgreSQL, WAL bytes a command"),
    "queue_all_to_floor": (0.60, "all, CPU time to the floor's"),
}
TITLES = {"connect": "Connecting", "core": "Core path", "lean": "Core path, lean records", "queue": "Queue path"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--record", action="store_true", help="write bench/check.json anew")
    p.add_argument("--runs", type=int, help="runs of which the medians count (default 1; to record 2)")
    p.add_argument("--only", choices=("counts", "ratios"), help="one of the two runs")
    a = p.parse_args()
    a.runs = a.runs or (2 if a.record else 1)
    if a.record and a.only:
        p.error("--record needs both runs")
    return a


def measure(a, progress):
    """{figure: value}"""
    out = {}
    if a.only != "ratios":
        if callgrind.available():
            out.update(check_counts.measure(REGISTERED, COUNTED_DEVICES, progress))
        elif a.record:
            sys.exit("bench-check: valgrind is needed to record (make bench-deps installs it)")
        else:
            progress("no valgrind here (make bench-deps installs it): instructions are not counted")
    if a.only != "counts":
        out.update(check_ratios.measure(REGISTERED, DEVICES, ROUNDS, progress))
    return out


def spread(values):
    middle = statistics.median(values)
    return max(abs(v - middle) for v in values) / middle


def libraries():
    """What the counts depend on beside our code."""
    compiler = subprocess.run([os.environ.get("CC", "gcc"), "-dumpfullversion"], capture_output=True, text=True, check=True)
    openssl = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    return {"compiler": compiler.stdout.strip(), "openssl": openssl.stdout.split()[1], "architecture": platform.machine()}


def record(runs):
    figures = {name: {"value": float(f"{statistics.median(r[name] for r in runs):.5g}"),
                      "spread": round(spread([r[name] for r in runs]), 4)} for name in FIGURES}
    report.save({"runs": len(runs), **libraries(), "figures": figures}, RECORDED)


def _short(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def compare(figures, recorded):
    """(lines to print, names of what got worse)"""
    lines, worse, path = [], [], None
    for name, (tolerance, title) in FIGURES.items():
        if name not in figures:
            continue
        if name.partition("_")[0] != path:
            path = name.partition("_")[0]
            lines += ["", f"{TITLES[path]:<57}{'now':>10}{'recorded':>11}{'change':>9}{'allowed':>9}"]
        value, known = figures[name], recorded["figures"][name]["value"]
        change = value / known - 1
        verdict = "WORSE" if change > tolerance else "better: record it" if change < -tolerance else ""
        lines.append(f"  {title:<55}{_short(value):>10}{_short(known):>11}{change:>+9.1%}{tolerance:>+9.0%}  {verdict}")
        if change > tolerance:
            worse.append(f"{TITLES[path].lower()}: {title}: {_short(value)}, recorded {_short(known)}, {change:+.1%}")
    return lines, worse


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    runs = [measure(a, progress) for _ in range(a.runs)]
    report.save({"runs": runs}, os.path.join(HERE, "results", "check.json"))
    if a.record:
        record(runs)
        print(f"recorded {len(runs)} runs in {RECORDED}")
    with open(RECORDED, encoding="utf-8") as f:
        recorded = json.load(f)
    now = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
    lines, worse = compare(now, recorded)
    print("\n".join(lines))
    for name, value in libraries().items():
        if recorded[name] != value:
            print(f"\nRecorded with {name} {recorded[name]}, this is {value}: counts may differ for that alone.")
    if worse:
        print("\nbench-check: worse than recorded:\n  " + "\n  ".join(worse))
        sys.exit(1)
    print("\nbench-check: nothing got worse")


if __name__ == "__main__":
    main()
