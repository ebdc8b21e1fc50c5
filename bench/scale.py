#!/usr/bin/python3
"""Measures a whole fleet on this machine, simulator included: `make bench-scale [DEVICES=300000] [QUICK=1]`.

Connects all devices, sends one command to all of them, several times, and says how long that took and what a device weighs;
then does the same with the floor (muster-floor), which exchanges the same records and keeps nothing.
TLS_RECORDS=lean and PLAIN=1 do the same with other connections; OPEN=1 measures 1,000,000 registered devices with 100 open
batches each. Starts everything itself and takes it down again. Prints a table and merges it into bench/results/scale.json."""
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from core import register  # noqa: E402
from measure import report_scale, scale, scale_open  # noqa: E402
from measure.installation import Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402

MODES = ("openssl", "lean", "plain", "open")

# Hundreds of megabytes of small objects a process, each touched seldom: with huge pages the processor finds them sooner.
HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="20,000 devices, fewer rounds")
    p.add_argument("--mode", default="openssl", choices=MODES, help="TLS by OpenSSL, lean TLS records, plain MQTT, open batches")
    p.add_argument("--devices", type=int, help="connected devices (default 300,000; quick 20,000)")
    p.add_argument("--registered", type=int, help="mode open: registered devices (default 1,000,000; quick 60,000)")
    p.add_argument("--batches", type=int, default=100, help="mode open: open batches, each to every registered device")
    p.add_argument("--workers", type=int, help="worker processes (default: as many as descriptors ask for, 2 at least)")
    p.add_argument("--rounds", type=int, help="commands to all, after a first one (default 4; quick 3)")
    p.add_argument("--idle", type=float, help="seconds in which nothing is done (default 10; mode open 20)")
    p.add_argument("--output", help="default bench/results/scale.json; quick: scale-quick.json")
    p.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    a = p.parse_args()
    a.devices = a.devices or (20000 if a.quick else 300000)
    a.registered = a.registered or (60000 if a.quick else 1000000)
    a.rounds = a.rounds or (3 if a.quick else 4)
    a.idle = a.idle or (20 if a.mode == "open" else 10)
    a.output = a.output or os.path.join(HERE, "results", "scale-quick.json" if a.quick else "scale.json")
    if a.mode == "open" and a.registered < a.devices:
        p.error("--registered: no fewer than --devices")
    return a


def measure_connected(a, i, progress):
    s = i.stack
    scale.start_workers(s, a.workers, a.mode)
    client = s.client(s.make_tenant("scale"), timeout=300)
    began = time.monotonic()
    ids = register(s, client, "device", a.devices)
    registered = time.monotonic()
    tokens = s.tokens(client, ids)
    progress(f"{a.devices:,} devices registered in {registered - began:.1f} s, tokens in {time.monotonic() - registered:.1f} s")
    out = scale.measure(i, client, tokens, a, progress)
    s.fleets[-1].quit()
    out |= scale.measure_floor(s, a.devices, a, progress)
    return out | {"core_to_floor": out["floor_s"] / out["all_s"], "floor_to_core_us": out["floor_all_us_per_cmd"] / out["all_us_per_cmd"]}


def measure(a, progress):
    connections = "plain" if a.mode == "open" else a.mode
    scale.check_memory(a.devices, connections)
    a.workers = a.workers or max(2, scale.workers_needed(a.devices)) + (2 if a.mode == "open" else 0)  # one restarts
    results = {"mode": a.mode, "devices": a.devices, "workers": a.workers, "rounds": a.rounds, "quick": a.quick,
               "glibc_tunables": os.environ["GLIBC_TUNABLES"]}
    progress("starting PostgreSQL, Redis, dispatcher")
    with Installation(0, a.keep) as i:
        if a.mode == "open":
            results |= {"registered": a.registered, "batches": a.batches}
            results |= scale_open.measure(i, a, progress)
        else:
            results |= measure_connected(a, i, progress)
        progress("taking all down")
    results["bench_seconds"] = time.monotonic() - progress.began
    return results


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    os.environ.setdefault(*HUGE_PAGES)
    progress = Progress()
    try:
        results = measure(a, progress)
    except scale.TooSmall as e:
        sys.exit(f"bench-scale: {e}")
    print(report_scale.table(a.mode, results))
    report_scale.merge(a.mode, results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
