#!/usr/bin/python3
"""Measures the figures of the capacity model and checks the model against runs: `make bench-model [RECORD=1] [QUICK=1]`.

Takes apart what a command, a block, a batch and a flush cost each component, what a connection costs, and runs the core and
the queue path with 1, 2 and 4 workers pinned to the cores. Prints each component's cost, its ratio to one worker, and what
`muster plan` foretells. Writes bench/results/model.json; with --record also bench/model.json, which `muster plan` is built
from, and README's figures."""
import argparse
import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from measure import commits, figures, gauge, model_readme, model_report, processes, reconnect, report, scaling  # noqa: E402
from measure.connected import Connected, socket_bytes  # noqa: E402
from measure.installation import ROOT, Installation  # noqa: E402
from measure.progress import Progress  # noqa: E402
from measure.shapes import Shapes  # noqa: E402

WORKERS = (1, 2, 4)
IDLE_S = 4.0
TRICKLE, TRICKLE_WORKERS = "0ms..2s", 8
FIGURES = os.path.join(HERE, "model.json")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="fewer devices and rounds")
    p.add_argument("--record", action="store_true", help="write bench/model.json and README's figures anew")
    p.add_argument("--readme", action="store_true", help="measure nothing: write README's figures from bench/model.json")
    p.add_argument("--output", default=os.path.join(HERE, "results", "model.json"))
    a = p.parse_args()
    a.registered, a.devices, a.few, a.rounds = (100000, 3000, 1000, 3) if a.quick else (300000, 10000, 2000, 5)
    return a


class Measurement:
    def __init__(self, a, progress, installation):
        self.a, self.progress, self.i, self.s = a, progress, installation, installation.stack
        self.figures, self.shapes, self.core, self.queue = {}, {}, {}, {}
        self.nothing = self.each = None

    def tenant(self, name, count):
        """(client of a dispatcher that does not lead, ids)"""
        client = self.s.client(self.s.make_tenant(name), dispatcher=self.s.dispatchers[1], timeout=120)
        ids = [f"{name}-{n:06d}" for n in range(count)]
        self.s.import_devices(client, ids)
        return client, ids

    def fleet(self, name, count):
        """(client, tokens) of a tenant's devices"""
        client, ids = self.tenant(name, count)
        return client, self.s.tokens(client, ids)

    def base(self, workers):
        """A second of `workers` idle workers."""
        return {name: self.nothing[name] / self.nothing["seconds"] + workers * value for name, value in self.each.items()} | {
            "seconds": 1.0}

    def measure_base(self):
        self.progress("idle, without and with workers")
        self.figures["dispatcher_bytes"] = processes.rss_bytes([self.s.dispatchers[0].pid])
        self.nothing = gauge.idle(self.i, IDLE_S)
        scaling.start_workers(self.s, 4)
        self.figures["worker_bytes"] = processes.rss_bytes([w.pid for w in self.s.workers]) / 4
        busy = gauge.idle(self.i, IDLE_S)
        self.each = {name: max(0.0, busy[name] / busy["seconds"] - self.nothing[name] / self.nothing["seconds"]) / 4
                     for name in self.nothing}
        for name in ("leader", "redis", "pg"):
            self.figures[f"{name}_us_per_s"] = self.base(0)[name]
        self.figures.update(worker_us_per_s=self.each["worker"], redis_us_per_worker_s=self.each["redis"],
                            pg_us_per_worker_s=self.each["pg"])

    def measure_shapes(self, client, ids):
        shapes = Shapes(self.i, client, ids)
        scaling.stop_workers(self.s)
        self.progress("what open batches weigh")
        opened = {shape: shapes.open_bytes(shape, count) for shape, count in (("whole", 5), ("scattered", 1), ("single", 1))}
        self.progress("batches of three shapes")
        self.s.start_worker("--answer-self")
        scaling.pin(self.s.workers)
        base = gauge.idle(self.i, IDLE_S)
        for shape, count in (("whole", 1), ("scattered", 1), ("single", 1)):
            shapes.run(shape, base, count)
        # Three of each, the middle one: a vacuum or checkpoint falls into one of them.
        for shape, count in (("whole", 5), ("scattered", 1), ("single", 1)):
            self.shapes[shape] = figures.median_of([shapes.run(shape, base, count) for _ in range(3)])
        scaling.stop_workers(self.s)
        return opened

    def measure_kinds(self, client, tokens):
        """What a connection costs by kind of record layer, the whole fleet of `tokens` on one worker."""
        for kind, flags, plain in (("plain", ["--listen-plain", "127.0.0.1:0"], True), ("lean", ["--tls-records", "lean"], False)):
            self.progress(f"{kind} connections")
            scaling.start_workers(self.s, 1, *flags)
            fleet = Connected(self.i, client, tokens, self.base(1), plain=plain)
            fleet.round()
            self._connection(kind, fleet, figures.median_of([fleet.round() for _ in range(self.a.rounds)]))
            if kind == "plain":
                self.figures["connect_us_plain"] = fleet.connecting["worker"] / fleet.devices
            fleet.close()

    def measure_idling(self, client, few):
        self.progress("keepalives and reconnects")
        scaling.start_workers(self.s, 1)
        fleet = Connected(self.i, client, few, self.base(1), ["--keepalive", "2s"])
        self.figures["worker_us_per_ping"] = fleet.idle_pings(6.0)
        fleet.close()
        scaling.start_workers(self.s, 2)
        again = reconnect.measure(self.i, few, self.progress)
        self.figures.update(reconnect_us_full=again["reconnect_full_worker_us"],
                            reconnect_us_resumed=again["reconnect_resumed_worker_us"],
                            redis_us_per_reconnect=again["reconnect_full_redis_us"])

    def _connection(self, kind, fleet, core):
        flushing = core["flushes"] * self.figures["worker_us_per_flush"]
        self.figures[f"worker_us_per_command_{kind}"] = (core["worker"] - flushing) / core["commands"]
        self.figures[f"worker_bytes_per_connection_{kind}"] = fleet.rss
        if kind == "openssl":
            self.figures["kernel_bytes_per_connection"] = socket_bytes()
            self.figures["connect_us_full"] = fleet.connecting["worker"] / fleet.devices
            self.figures["redis_us_per_attach"] = fleet.connecting["redis"] / fleet.devices

    def measure_trickle(self, client, tokens):
        """Acknowledgements spread so that each flush has a few, of so many workers that Redis and PostgreSQL are busy with
        them: what a flush takes where it counts. (Alone, it would be charged with waking everybody up.)"""
        self.progress(f"answers over {TRICKLE} to {TRICKLE_WORKERS} workers")
        scaling.start_workers(self.s, TRICKLE_WORKERS, "--flush-interval", "1ms")
        fleet = Connected(self.i, client, tokens, self.base(TRICKLE_WORKERS), ["--think", TRICKLE])
        fleet.round()
        self.shapes["trickle"] = figures.median_of([fleet.round() for _ in range(3)])
        fleet.close()

    def measure_paths(self, whole, client, tokens):
        for w in WORKERS:
            fleet, self.core[w] = scaling.core_path(self.i, client, tokens, w, self.base(w), self.a.rounds, self.progress)
            fleet.close()
            if w == 1:
                _, self.figures["worker_us_per_flush"] = figures.of_worker(self.core[1], self.shapes["trickle"])
                self._connection("openssl", fleet, self.core[1])
        for w in WORKERS:
            self.queue[w] = scaling.queue_path(self.i, whole, self.a.registered, w, self.base(w), self.a.rounds, self.progress)
        scaling.stop_workers(self.s)

    def run(self):
        self.progress(f"registering {self.a.registered:,} devices")
        self.s.start_dispatcher()
        whole, ids = self.tenant("registered", self.a.registered)
        connected, few = self.fleet("connected", self.a.devices), self.fleet("few", self.a.few)
        self.measure_base()
        opened = self.measure_shapes(whole, ids)
        self.measure_trickle(*connected)
        self.measure_paths(whole, *connected)
        self.measure_kinds(*connected)
        self.measure_idling(*few)
        self.figures.update(figures.of_work(self.shapes, opened))
        self.progress("durable transactions of PostgreSQL")
        self.figures["pg_commits_per_s"] = commits.measure(self.i)
        self.progress("taking all down")
        return {"registered": self.a.registered, "devices": self.a.devices, "rounds": self.a.rounds, "quick": self.a.quick,
                "figures": dict(sorted(self.figures.items())), "shapes": self.shapes, "open": opened, "core": self.core,
                "queue": self.queue}


def save_figures(results):
    """Writes what `muster plan` and README are made from; the check only if there is one yet."""
    kept = {"figures": {name: float(f"{value:.4g}") for name, value in results["figures"].items()}}
    if "check" in results:
        kept["check"] = {path: {str(w): rows for w, rows in by.items()} for path, by in results["check"].items()}
    report.save(kept, FIGURES)


def build_plan():
    build = os.environ.get("MUSTER_BUILD", "build")
    subprocess.run(["make", "--no-print-directory", f"BUILD={build}", f"{build}/muster"], check=True, cwd=ROOT,
                   stdout=subprocess.DEVNULL)


def record(results):
    """Builds `muster` with the new figures, checks the model with it, and writes README's figures."""
    save_figures(results)
    build_plan()
    results["check"] = model_report.check(results)
    save_figures(results)
    write_readme()


def write_readme():
    with open(FIGURES, encoding="utf-8") as f:
        model_readme.write(json.load(f))


def main():
    a = arguments()
    if a.readme:
        write_readme()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    progress = Progress()
    with Installation(0) as i:
        results = Measurement(a, progress, i).run()
    if a.record:
        record(results)
    else:
        results["check"] = model_report.check(results)
    print(model_report.table(results))
    report.save(results, a.output)
    print(f"\n{a.output}")


if __name__ == "__main__":
    main()
