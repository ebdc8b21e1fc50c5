#!/usr/bin/python3
"""Whether memory stays flat in the long run: `make soak [MINUTES=10]`.

Two dispatchers, two workers, PostgreSQL, Redis and 2,000 simulated devices over TLS, at a moderate load of every kind; the memory
of each daemon is sampled and its slope held against a bound. Starts everything itself and takes it down again. Prints a table
and writes bench/results/soak.json. Exits 1 when something grows, or a batch was lost."""
import argparse
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import report, soak  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402
from measure.soak_load import EXPIRY_S, TENANTS, Load  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--rate", type=float, default=10, help="batches a second, of about 55 devices in the mean")
    p.add_argument("--churn", type=float, default=3, help="devices that disconnect a second")
    p.add_argument("--output", default=os.path.join(HERE, "results", "soak.json"))
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    return p.parse_args()


def measure(a, progress):
    with Installation(2, a.keep) as i:
        i.stack.start_dispatcher()
        progress(f"{sum(TENANTS):,} devices of {len(TENANTS)} tenants")
        load = Load(i.stack, a.rate).start(a.churn)
        watched, meter = soak.Soak(i, load), i.meter([load.fleet])
        progress(f"{a.minutes:g} minutes")
        watched.run(a.minutes * 60, progress)
        used = meter.read()
        load.stop()
        results = {"minutes": a.minutes, "rate": a.rate, "churn": a.churn} | watched.results(a.minutes * 60)
        results["cpu_share"] = {name: us / 1e6 / results["seconds"] for name, us in used.items()}
        ids = [b for b, in i.query("SELECT id FROM batch")]
        i.wait_batches("closed_ms", ids, timeout=max(EXPIRY_S) + 120)  # each has expired by then
        progress("every batch is closed")
    return results


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    results = measure(a, Progress())
    print(soak.table(results))
    report.save(results, a.output)
    print(f"\n{a.output}")
    return 0 if results["flat"] and not results["failed_calls"] else 1


if __name__ == "__main__":
    sys.exit(main())
