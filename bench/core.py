#!/usr/bin/python3
"""Measures Muster's core path on this machine, against the bare floor in the same run: `make bench [QUICK=1]`.

Starts PostgreSQL, Redis, a dispatcher and workers of its own, and takes them down again. Prints a table and writes
bench/results/core.json. Exits 0 when everything was measured, whether or not the figures are what is wanted."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import accept, queue_path, reconnect, report, sockets, submits, trickle  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402

PARTS = ("accept", "core", "lean", "reconnect", "trickle", "submit", "queue")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a smaller run within 50 s")
    p.add_argument("--devices", type=int, help="connected devices (default 10,000; quick 3,000)")
    p.add_argument("--registered", type=int, default=300000, help="registered devices of the fleet-wide batches")
    p.add_argument("--workers", type=int, default=2, help="worker processes")
    p.add_argument("--floor-servers", type=int, default=1, help="server processes of the floor; one is its best on 2 cores")
    p.add_argument("--rounds", type=int, help="rounds of each measurement (default 9; quick 3)")
    p.add_argument("--only", default=",".join(PARTS), help="parts to measure, separated by commas")
    p.add_argument("--output", default=os.path.join(HERE, "results", "core.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    unknown = set(a.only.split(",")) - set(PARTS)
    if unknown:
        p.error(f"--only: {min(unknown)!r} is none of {', '.join(PARTS)}")
    a.devices = a.devices or (3000 if a.quick else 10000)
    a.rounds = a.rounds or (3 if a.quick else 9)
    return a


def register(stack, client, prefix, count):
    ids = [f"{prefix}-{i:06d}" for i in range(count)]
    stack.import_devices(client, ids)
    return ids


def measure(a, progress):
    parts, results = set(a.only.split(",")), {"devices": a.devices, "registered": a.registered, "workers": a.workers,
                                              "rounds": a.rounds, "quick": a.quick}
    progress("starting PostgreSQL, Redis, dispatcher, workers")
    with Installation(a.workers, a.keep) as i:
        s = i.stack
        fleet_wide = s.make_tenant("fleet-wide")
        whole = s.client(fleet_wide, timeout=120)
        if parts & {"accept", "trickle", "submit", "queue"}:
            progress(f"registering {a.registered:,} devices")
            began = time.monotonic()
            ids = register(s, whole, "registered", a.registered)
            results["register_devices_s"] = a.registered / (time.monotonic() - began)
        if "accept" in parts:
            progress("accepting, validating, cancelling")
            results.update(accept.measure(i, whole, a.registered, a.rounds))
        if parts & {"core", "lean", "reconnect"}:
            connected = s.client(s.make_tenant("connected"), timeout=120)
            tokens = s.tokens(connected, register(s, connected, "connected", a.devices))
        if "core" in parts:
            results.update(sockets.measure(i, connected, tokens, a.rounds, a.floor_servers, progress))
        if "lean" in parts:
            results.update(sockets.measure_lean(i, connected, tokens, a.rounds, a.floor_servers, progress))
        if "reconnect" in parts and a.workers > 1:
            results.update(reconnect.measure(i, tokens, progress))
        if "trickle" in parts:
            results.update(trickle.measure(i, whole, ids, 32 if a.quick else 96, progress))
        if parts & {"submit", "queue"}:
            for w in s.workers:
                w.stop()
        if "submit" in parts:
            worker = s.start_worker("--answer-self")
            results.update(submits.measure(i, fleet_wide, ids, 5 if a.quick else 20, progress))
            worker.stop()
        if "queue" in parts:
            results.update(queue_path.measure(i, whole, a.registered, a.rounds, progress))
        progress("taking all down")
    results["bench_seconds"] = time.monotonic() - progress.began
    return results


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    results = measure(a, progress)
    print(report.table(results))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
