#!/usr/bin/python3
"""Measures long lists: import, batches to explicit ids, export, watchers: `make bench-lists [QUICK=1]`.

Starts PostgreSQL, Redis and a dispatcher of its own, and takes them down again. Prints a table and writes
bench/results/lists.json. Exits 0 when everything was measured, whether or not the figures are what is wanted."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import lists, report  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402

PARTS = ("import", "submit", "export", "watch")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a tenth of the devices, fewer rounds")
    p.add_argument("--registered", type=int, help="registered devices (default 1,000,000; quick 100,000)")
    p.add_argument("--count", type=int, help="devices of a batch (default 300,000; quick 30,000)")
    p.add_argument("--rounds", type=int, help="rounds of each measurement (default 5; quick 2)")
    p.add_argument("--only", default=",".join(PARTS), help="parts to measure, separated by commas")
    p.add_argument("--output", default=os.path.join(HERE, "results", "lists.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    unknown = set(a.only.split(",")) - set(PARTS)
    if unknown:
        p.error(f"--only: {min(unknown)!r} is none of {', '.join(PARTS)}")
    a.registered = a.registered or (100000 if a.quick else 1000000)
    a.count = a.count or (30000 if a.quick else 300000)
    a.rounds = a.rounds or (2 if a.quick else 5)
    if a.count > a.registered:
        p.error(f"--count {a.count}: there are {a.registered} devices")
    return a


def measure(a, progress):
    parts = set(a.only.split(","))
    results = {"registered": a.registered, "count": a.count, "rounds": a.rounds, "quick": a.quick}
    progress("starting PostgreSQL, Redis, dispatcher")
    with Installation(0, a.keep) as i:
        tenant = i.stack.make_tenant("lists")
        results.update(lists.import_file(i, tenant, a.registered, progress))
        if "import" in parts:
            results.update(lists.import_stream(i, i.stack.make_tenant("stream"), a.registered, progress))
        if "submit" in parts:
            results.update(lists.submit(i, tenant, a.registered, a.count, a.rounds, progress))
        if "export" in parts:
            results.update(lists.export(i, tenant, a.registered, a.count, a.rounds, progress))
        if "watch" in parts:
            results.update(lists.watch(i, tenant, a.count, (1, 10, 100) if a.quick else (1, 10, 100, 1000), progress))
        progress("taking all down")
    results["bench_seconds"] = time.monotonic() - progress.began
    return results


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    results = measure(a, Progress())
    print(report.table(results, lists.TABLE))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
