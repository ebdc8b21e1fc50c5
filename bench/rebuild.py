#!/usr/bin/python3
"""Measures how soon everything flows again when Redis is lost entirely, under load: `make bench-rebuild [QUICK=1]`.

Starts PostgreSQL, Redis, a dispatcher and workers, loses Redis in two ways (emptied; killed and started again with nothing),
and takes all down again. Prints a table and writes bench/results/rebuild.json. Exits 0 when everything was measured and no
command was lost or executed twice."""
import argparse
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import rebuild, report  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a tenth of the devices, one round")
    p.add_argument("--registered", type=int, help="open commands when Redis is lost (default 300,000)")
    p.add_argument("--devices", type=int, help="devices connected over plain MQTT, under load (default 10,000)")
    p.add_argument("--rounds", type=int, help="times Redis is lost in each way (default 3)")
    p.add_argument("--output", default=os.path.join(HERE, "results", "rebuild.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    a.registered = a.registered or (30000 if a.quick else 300000)
    a.devices = a.devices or (1000 if a.quick else 10000)
    a.rounds = a.rounds or (1 if a.quick else 3)
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    results = {"registered": a.registered, "devices": a.devices, "rounds": a.rounds, "quick": a.quick}
    with Installation(0, a.keep) as i:
        results.update(rebuild.measure_open(i, a.registered, a.rounds, progress))
    with Installation(0, a.keep) as i:
        results.update(rebuild.measure_connected(i, a.devices, a.rounds, progress))
    print(report.table(results, rebuild.SECTIONS))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
