"""The core path and the floor, round by round in turns, with the same simulator: what this machine does at the moment
weighs on both alike."""
import json
import os
import statistics
import subprocess
import time

from . import half_load, processes, prometheus
from .installation import ROOT

# How long a round may take.
ROUND_S = 120


def _program(name):
    return os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), name)


class Floor:
    """muster-floor servers with a muster-fleet of raw records on them; both with `flags`."""

    def __init__(self, certificates, connections, servers, flags=(), fleet_flags=("--quiet",)):
        self.connections, self.servers, self.fleet = connections, [], None
        try:
            self._start(certificates, connections, servers, flags, fleet_flags)
        except BaseException:
            self.stop()
            raise

    def _start(self, certificates, connections, servers, flags, fleet_flags):
        self.shares = [connections // servers + (1 if i < connections % servers else 0) for i in range(servers)]
        for share in self.shares:
            self.servers.append(subprocess.Popen(
                [_program("muster-floor"), "--connections", str(share), "--rounds", "1000000", "--pause", "0", "--step",
                 "--tls-cert", certificates.cert, "--tls-key", certificates.key, *flags],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        ports = [self._read(s)["port"] for s in self.servers]
        self.fleet = subprocess.Popen(
            [_program("muster-fleet"), "--connect", ",".join(f"127.0.0.1:{p}" for p in ports), "--floor", "--ca",
             certificates.ca, "--devices", str(connections), "--source", "127.2.0.1", "--json", "--control", *flags,
             *fleet_flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for s in self.servers:
            self._read(s)

    @staticmethod
    def _read(process):
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"{process.args[0]} ended")
        return json.loads(line)

    def round(self):
        """{"cmd_s", "server_us", "fleet_us", "rss"}"""
        meter = processes.Meter({"fleet": [self.fleet.pid]})
        began = time.monotonic()
        for s in self.servers:
            s.stdin.write("\n")
            s.stdin.flush()
        done = [self._read(s) for s in self.servers]
        seconds = time.monotonic() - began
        time.sleep(0.05)  # the fleet reads the last records
        return {
            "cmd_s": self.connections / seconds,
            "server_us": sum(d["cpu_us_per_command"] * n for d, n in zip(done, self.shares)) / self.connections,
            "fleet_us": meter.read()["fleet"] / self.connections,
            "rss": sum(d["rss_bytes_per_connection"] * n for d, n in zip(done, self.shares)) / self.connections,
        }

    def stop(self):
        for p in [self.fleet, *self.servers]:
            if p:
                p.kill()
                p.wait()


class Core:
    """Devices of one tenant, all connected to `workers` (default: all there are)."""

    def __init__(self, installation, client, tokens, workers=None, fleet_flags=()):
        self.i, self.client, self.devices, self.ids = installation, client, len(tokens), list(tokens)
        self.workers = workers or installation.stack.workers
        self.rss_before = processes.rss_bytes([w.pid for w in self.workers])
        self.fleet = installation.stack.start_fleet(tokens, "--quiet", *fleet_flags, workers=self.workers)
        time.sleep(1.0)  # what the handshakes left is freed
        self.rss = (processes.rss_bytes([w.pid for w in self.workers]) - self.rss_before) / self.devices

    def round(self):
        """One command to all. {"cmd_s", "seconds", "accept_ms", "closed_s", "us": {component: µs per command}}"""
        s = self.i.stack
        wanted = self.fleet.stats()["acked"] + self.devices
        meter = self.i.meter([self.fleet], self.workers)
        began = time.monotonic()
        batch = s.submit(self.client).batch
        accepted = time.monotonic()
        if batch.device_count != self.devices:
            raise AssertionError(f"a batch to all addresses {batch.device_count} of {self.devices} devices")
        while (stats := self.fleet.stats())["acked"] < wanted:
            if time.monotonic() - began > ROUND_S:
                raise AssertionError(f"{stats['acked']} of {wanted} acknowledgements have their PUBACK after {ROUND_S} s")
            time.sleep(0.02)
        # A PUBACK comes after the commit, so the last one is no earlier than the last acknowledgement persisted. The clock
        # is the same as time.monotonic().
        seconds = stats["last_acked_us"] / 1e6 - began
        closed = self.i.wait_closed(self.client, batch.id)
        used = meter.read()
        self.i.succeeded(closed)
        return {
            "cmd_s": self.devices / seconds,
            "seconds": seconds,
            "accept_ms": (accepted - began) * 1e3,
            "closed_s": time.monotonic() - began,
            "us": {name: us / self.devices for name, us in used.items()},
        }


def measure(installation, client, tokens, rounds, floor_servers, progress, workers=None, fleet_flags=()):
    """Core and floor rounds in turns, the first of each thrown away."""
    s = installation.stack
    progress(f"connecting {len(tokens):,} devices to the workers")
    core = Core(installation, client, tokens, workers, fleet_flags)
    progress(f"connecting {len(tokens):,} peers to the floor")
    floor = Floor(s.certificates, len(tokens), floor_servers)
    try:
        cores, floors, admins = [], [], [w.admin for w in core.workers]
        before = None
        for n in range(rounds + 1):
            progress(f"round {n} of {rounds}")
            floors.append(floor.round())
            cores.append(core.round())
            if n == 0:
                before = prometheus.scrape(admins)
        after = prometheus.scrape(admins)
    finally:
        floor.stop()
    results = _results(len(tokens), core, cores[1:], floors[1:], before, after)
    results.update(half_load.measure(core, results["core_cmd_s"], progress))
    core.fleet.quit()
    return results


def measure_lean(installation, client, tokens, rounds, floor_servers, progress):
    """The same with records of our own on both sides, on workers made for it; the floor keeps OpenSSL's. Keys with "lean_"."""
    s, flags = installation.stack, ["--tls-records", "lean"]
    workers = [s.start_worker(*flags) for _ in range(len(s.workers))]
    results = measure(installation, client, tokens, rounds, floor_servers, progress, workers, flags)
    for w in workers:
        w.stop()
        s.workers.remove(w)
    return {f"lean_{key}": value for key, value in results.items()}


def _results(devices, core, cores, floors, before, after):
    def median(rows, key):
        return statistics.median(r[key] for r in rows)

    push_ack = prometheus.quantiles_ms(before, after, "muster_worker_push_ack_seconds")
    submit_push = prometheus.quantiles_ms(before, after, "muster_worker_submit_push_seconds")
    out = {
        "devices": devices,
        "core_cmd_s": median(cores, "cmd_s"),
        "floor_cmd_s": median(floors, "cmd_s"),
        "core_to_floor": statistics.median(c["cmd_s"] / f["cmd_s"] for c, f in zip(cores, floors)),
        "core_closed_s": median(cores, "closed_s"),
        "core_accept_ms": median(cores, "accept_ms"),
        "worker_rss_per_conn": core.rss,
        "floor_rss_per_conn": median(floors, "rss"),
        "floor_server_us_per_cmd": median(floors, "server_us"),
        "floor_fleet_us_per_cmd": median(floors, "fleet_us"),
        "core_cmd_s_rounds": [c["cmd_s"] for c in cores],
        "floor_cmd_s_rounds": [f["cmd_s"] for f in floors],
    }
    for name in ("dispatcher", "worker", "redis", "pg", "fleet"):
        out[f"{name}_us_per_cmd"] = statistics.median(c["us"][name] for c in cores)
    for label, values in (("push_ack", push_ack), ("submit_push", submit_push)):
        for q, value in zip(("p50", "p99", "p999"), values):
            out[f"{label}_{q}_ms"] = value
    return out
