#!/usr/bin/python3
"""Measures what those feel who behave while others want too much: `make bench-overload [QUICK=1]`.

Half-open connections and peers that take for ever over their first words, a fleet that comes all at once, a tenant that floods. Starts everything itself and takes it
down again. Prints a table and writes bench/results/overload.json. Exits 0 when everything was measured."""
import argparse
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from core import register  # noqa: E402
from measure import half_open, overload, report  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402

PARTS = ("half-open", "storm", "flood")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a tenth of the peers, shorter")
    p.add_argument("--only", default=",".join(PARTS), help="parts to measure, separated by commas")
    p.add_argument("--coming", type=int, default=2000, help="half-open connections a second while they come; 0: all at once")
    p.add_argument("--rounds", type=int, default=3, help="of the half-open part")
    p.add_argument("--output", default=os.path.join(HERE, "results", "overload.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    unknown = set(a.only.split(",")) - set(PARTS)
    if unknown:
        p.error(f"--only: {min(unknown)!r} is none of {', '.join(PARTS)}")
    a.strangers, a.slow, a.storm, a.seconds = (2000, 100, 1000, 5) if a.quick else (20000, 1000, 10000, 10)
    return a


def measure(a, progress):
    parts, results = set(a.only.split(",")), {"quick": a.quick}
    with Installation(1, a.keep) as i:
        s = i.stack
        tenant, other = s.make_tenant("steady"), s.make_tenant("crowd")
        client, crowd = s.client(tenant, timeout=120), s.client(other, timeout=120)
        ids = register(s, client, "steady", overload.STEADY)
        tokens = s.tokens(client, ids)
        results["steady"] = len(ids)
        if "half-open" in parts:
            results |= half_open.measure(i, client, tokens, a, progress)
        if "storm" in parts:
            results |= overload.storm(i, client, s.tokens(crowd, register(s, crowd, "crowd", a.storm)), tokens, progress)
        if "flood" in parts:
            for w in s.workers:
                w.stop()
            s.start_worker("--answer-self")
            large = s.make_tenant("large")
            large_ids = register(s, s.client(large, timeout=120), "large", 20000)
            results |= overload.flood(i, client, ids, large, large_ids, a.seconds, progress)
        progress("taking all down")
    return results


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    results = measure(a, Progress())
    print(report.table(results, half_open.TABLE + overload.TABLE))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
