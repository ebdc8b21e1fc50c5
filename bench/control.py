#!/usr/bin/python3
"""Measures steering a fleet-wide command, and stopping it: `make bench-control [QUICK=1]`.

Starts an installation and a simulated fleet of its own, and takes them down again. Prints a table with the goals and writes
bench/results/control.json. A part is a function of measure/ that is given the installation and adds figures; see PARTS."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import answers, filters, lanes, report, stopping, valued  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.one_group import one_group  # noqa: E402
from measure.progress import Progress  # noqa: E402

# name: (function of (field, progress) that gives figures, its rows of the table)
PARTS = {"stop": (stopping.measure, stopping.TABLE), "values": (valued.measure, valued.TABLE),
         "answers": (answers.measure, answers.TABLE), "filter": (filters.measure, filters.TABLE),
         "urgent": (lanes.measure_urgent, lanes.TABLE[:1]), "fair": (lanes.measure_fair, lanes.TABLE[1:])}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a tenth of the devices, fewer rounds")
    p.add_argument("--registered", type=int, help="registered devices, all addressed (default 300,000; quick 30,000)")
    p.add_argument("--connected", type=int, help="of them connected over TLS (default 10,000; quick 2,000)")
    p.add_argument("--rounds", type=int, help="rounds of each measurement (default 5; quick 2)")
    p.add_argument("--only", default=",".join(PARTS), help="parts to measure, separated by commas")
    p.add_argument("--output", default=os.path.join(HERE, "results", "control.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    unknown = set(a.only.split(",")) - set(PARTS)
    if unknown:
        p.error(f"--only: {min(unknown)!r} is none of {', '.join(PARTS)}")
    a.registered = a.registered or (30000 if a.quick else 300000)
    a.connected = a.connected or (2000 if a.quick else 10000)
    a.rounds = a.rounds or (2 if a.quick else 5)
    if a.connected > a.registered:
        p.error(f"--connected {a.connected}: there are {a.registered} devices")
    return a


class Field:
    """What the parts share: a tenant with its devices, some of them connected."""

    def __init__(self, installation, arguments, progress):
        self.installation, self.stack, self.pb = installation, installation.stack, installation.stack.pb
        self.registered, self.connected, self.rounds = arguments.registered, arguments.connected, arguments.rounds
        self.tenant = self.stack.make_tenant("control")
        self.client = self.stack.client(self.tenant)
        progress(f"registering {self.registered:,} devices")
        ids = [f"device-{i:06d}" for i in range(self.registered)]
        self.stack.import_devices(self.client, ids)
        self.tokens = self.stack.tokens(self.client, ids[:self.connected])
        progress(f"connecting {self.connected:,} of them")
        self.fleet = self.stack.start_fleet(self.tokens)


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    results = {"registered": a.registered, "connected": a.connected, "rounds": a.rounds, "quick": a.quick}
    progress("starting PostgreSQL, Redis, a dispatcher and two workers")
    with one_group() as results["one_group"], Installation(2, a.keep) as installation:
        field = Field(installation, a, progress)
        for name in a.only.split(","):
            results.update(PARTS[name][0](field, progress))
        progress("taking all down")
    results["bench_seconds"] = time.monotonic() - progress.began
    print(report.table(results, [row for name in a.only.split(",") for row in PARTS[name][1]]))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
