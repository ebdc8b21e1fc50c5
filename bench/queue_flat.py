#!/usr/bin/python3
"""Measures what a command costs in batches of 1,000 to 1,000,000 devices, without sockets: `make bench-flat [QUICK=1]`.

Starts PostgreSQL, Redis, a dispatcher and a worker that answers for every device, registers the devices and takes all down
again. Prints a table, writes bench/results/queue_flat.json and, with python3-matplotlib (`make bench-deps`), queue_flat.svg.
Exits 0 when everything was measured."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import flat, report  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="one round")
    p.add_argument("--registered", type=int, default=1000000, help="registered devices: the size of the largest batch")
    p.add_argument("--rounds", type=int, help="rounds over all sizes (default 5; quick 1)")
    p.add_argument("--output", default=os.path.join(HERE, "results", "queue_flat.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    a.rounds = a.rounds or (1 if a.quick else 5)
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    results = {"registered": a.registered, "rounds": a.rounds, "quick": a.quick}
    with Installation(0, a.keep) as i:
        s = i.stack
        client = s.client(s.make_tenant("fleet-wide"), timeout=300)
        progress(f"registering {a.registered:,} devices")
        ids = [f"registered-{n:07d}" for n in range(a.registered)]
        began = time.monotonic()
        s.import_devices(client, ids)
        results["register_devices_s"] = a.registered / (time.monotonic() - began)
        i.database.execute("VACUUM ANALYZE")  # or it comes of itself, into the figures
        s.start_worker("--answer-self")
        results.update(flat.measure(i, client, ids, a.rounds, progress))
    print(flat.table(results["flat"]))
    report.save(results, a.output)
    print(f"\n{a.output}")
    svg = os.path.splitext(a.output)[0] + ".svg"
    print(svg if flat.plot(results["flat"], svg) else f"{svg} needs python3-matplotlib: make bench-deps")


if __name__ == "__main__":
    main()
