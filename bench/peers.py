#!/usr/bin/python3
"""Measures Muster beside what people use today, on this machine, in one run: `make bench-peers [QUICK=1]`.

The core path beside message brokers, the queue path beside job queues; every server is private, on loopback, and taken down
again. What is not installed (make bench-deps) is said and left out. Prints a table and writes bench/results/peers.json and plots.
Exits 0 when everything was measured, whether or not the figures are what is wanted."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from core import register  # noqa: E402
from measure import peers_core, peers_queue, report, report_peers  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402

PARTS = ("core", "queue")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a smaller run within two minutes")
    p.add_argument("--devices", type=int, help="connected devices of the core path (default 10,000; quick 2,000)")
    p.add_argument("--registered", type=int, help="devices of Muster's queue path (default 300,000)")
    p.add_argument("--jobs", type=int, help="jobs of a round, half for slow queues, three times for fast ones (default 100,000; quick 10,000)")
    p.add_argument("--rounds", type=int, help="rounds of each measurement (default 3; quick 2)")
    p.add_argument("--only", default=",".join(PARTS), help="parts to measure, separated by commas")
    p.add_argument("--queues", help="these queues only, separated by semicolons")
    p.add_argument("--output", default=os.path.join(HERE, "results", "peers.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    unknown = set(a.only.split(",")) - set(PARTS)
    if unknown:
        p.error(f"--only: {min(unknown)!r} is none of {', '.join(PARTS)}")
    a.queues = a.queues.split(";") if a.queues else None
    if a.queues and (unknown := set(a.queues) - {row.name for row in peers_queue.systems()}):
        p.error(f"--queues: {min(unknown)!r} is none of {'; '.join(row.name for row in peers_queue.systems())}")
    a.devices = a.devices or (2000 if a.quick else 10000)
    a.registered = a.registered or 300000
    a.jobs = a.jobs or (10000 if a.quick else 100000)
    a.rounds = a.rounds or (2 if a.quick else 3)
    return a


def core(a, progress):
    with Installation(0, a.keep) as i:
        return peers_core.measure(i, a.devices, a.rounds, progress)


def queue(a, progress):
    with Installation(0, a.keep) as i:
        s = i.stack
        client = s.client(s.make_tenant("fleet-wide"), timeout=120)
        progress(f"registering {a.registered:,} devices")
        register(s, client, "registered", a.registered)
        return peers_queue.measure(i, client, a.registered, a.jobs, a.rounds, progress, a.queues)


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress, parts = Progress(), a.only.split(",")
    results = {"devices": a.devices, "registered": a.registered, "jobs": a.jobs, "rounds": a.rounds, "quick": a.quick}
    if "core" in parts:
        results["core"] = core(a, progress)
    if "queue" in parts:
        results["queue"] = queue(a, progress)
    results["goals"] = report_peers.goals(results)
    results["bench_seconds"] = time.monotonic() - progress.began
    print(report_peers.table(results))
    report.save(results, a.output)
    print("\n" + "\n".join([a.output, *report_peers.plots(results, os.path.dirname(a.output))]))


if __name__ == "__main__":
    main()
