"""Peers and callers that want too much, and what those feel who do not: half-open connections, a fleet that comes all at once,
a tenant that floods."""
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time

from . import processes, prometheus
from .installation import ROOT

# Commands to the devices that behave: slices of them by the clock.
STEADY, SLICE, EVERY_S = 1000, 20, 0.02
STRANGERS = os.path.join(ROOT, "tests", "integration", "harness", "strangers.py")

TABLE = [
    ("{steady:,} devices at {steady_cmd_s:,.0f} commands/s while {strangers:,} connections are half open", [
        ("push → ack p50, before", "half_open_before_p50_ms", "{:,.2f} ms", None),
        ("push → ack p50, meanwhile", "half_open_during_p50_ms", "{:,.2f} ms", None),
        ("push → ack p99, before", "half_open_before_p99_ms", "{:,.2f} ms", None),
        ("push → ack p99, while they come", "half_open_coming_p99_ms", "{:,.2f} ms", None),
        ("the same while they come to a bare listener", "half_open_elsewhere_p99_ms", "{:,.2f} ms", None),
        ("p99 while they come / to the bare listener", "half_open_coming_ratio", "{:.2f}", ("max", 1.10)),
        ("push → ack p99, while they stay", "half_open_during_p99_ms", "{:,.2f} ms", None),
        ("push → ack p99, after", "half_open_after_p99_ms", "{:,.2f} ms", None),
        ("p99 meanwhile / before and after", "half_open_p99_ratio", "{:.2f}", ("max", 1.10)),
        ("worker's CPU, of one core", "half_open_worker_share", "{:.2f}", None),
        ("the half-open peers' CPU", "half_open_peers_share", "{:.2f}", None),
        ("worker's memory grown", "half_open_rss_growth", "{:,.0f} bytes", None),
        ("closed early for want of room", "half_open_dropped", "{:,.0f}", None),
        ("devices lost", "half_open_lost", "{:,.0f}", ("max", 0)),
    ]),
    ("{storm:,} devices come at once to the worker of {steady:,} others", [
        ("until each is back", "storm_seconds", "{:,.2f} s", None),
        ("attempts the worker let fail", "storm_failed", "{:,.0f}", ("max", 0)),
        ("push → ack p99 of the others, before", "storm_before_p99_ms", "{:,.2f} ms", None),
        ("push → ack p99 of the others, meanwhile", "storm_during_p99_ms", "{:,.2f} ms", None),
        ("push → ack p50 of the others, meanwhile", "storm_during_p50_ms", "{:,.2f} ms", None),
    ]),
    ("A small tenant's batches, one after another, while another floods with {callers:,} callers", [
        ("p50, alone", "small_alone_p50_ms", "{:,.2f} ms", None),
        ("p99, alone", "small_alone_p99_ms", "{:,.2f} ms", None),
        ("p50, beside the flood", "small_flooded_p50_ms", "{:,.2f} ms", None),
        ("p99, beside the flood", "small_flooded_p99_ms", "{:,.2f} ms", None),
        ("its batches turned away", "small_refused", "{:,.0f}", ("max", 0)),
        ("the flood: accepted", "flood_ok_s", "{:,.0f} batches/s", None),
        ("the flood: turned away", "flood_refused", "{:,.0f}", None),
        ("left to close after it", "flood_behind_s", "{:,.2f} s", None),
        ("dispatcher's memory grown", "flood_rss_growth", "{:,.0f} bytes", None),
    ]),
]


def until(look, what, seconds=180):
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Steady:
    """Commands by the clock, for as long as it is open: `with Steady(…) as s: s.quantiles(seconds)`."""

    def __init__(self, stack, client, ids, worker):
        self.s, self.client, self.ids, self.worker = stack, client, ids, worker
        self.ending, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        pb, due, n = self.s.pb, time.monotonic(), 0
        try:
            while not self.ending.wait(max(due - time.monotonic(), 0)):
                at = n * SLICE % len(self.ids)
                self.s.submit(self.client, target=pb.Target(devices=pb.DeviceIds(ids=self.ids[at:at + SLICE])))
                n, due = n + 1, due + EVERY_S
        except Exception as e:  # told at the end
            self.error = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(60)
        if self.error:
            raise self.error

    def quantiles(self, seconds=None, until=None):
        """p50 and p99 in ms of what was answered within `seconds`, or until `until()` is true."""
        before, began = prometheus.scrape([self.worker.admin]), time.monotonic()
        while time.monotonic() - began < (seconds or 120) and not (until and until()):
            time.sleep(0.05)
        return prometheus.quantiles_ms(before, prometheus.scrape([self.worker.admin]), "muster_worker_push_ack_seconds")[:2]


class BareListener:
    """A process that accepts whatever comes and does nothing with it: what a crowd costs who only shares its machine."""

    CODE = """
import resource, select, socket, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
s, taken = socket.create_server(("127.0.0.1", 0), backlog=4096), []
print("127.0.0.1:%d" % s.getsockname()[1], flush=True)
while True:
    ready = select.select([s, sys.stdin], [], [])[0]
    if sys.stdin in ready:
        break
    while len(taken) < most - 64:
        s.setblocking(False)
        try:
            taken.append(s.accept()[0])
        except BlockingIOError:
            break
"""

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.child.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait(60)


class Crowd:
    """Processes of half-open peers: all manners, `count` connections in all, those closed made anew."""

    def __init__(self, address, count):
        self.children = [subprocess.Popen([sys.executable, STRANGERS, address, str(count // 6), manner, str(2 + n), "50"],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                         for n, manner in enumerate(["silent", "half", "hello"] * 2)]

    def wait_held(self):
        for c in self.children:
            c.stdout.readline()

    def held(self):
        return all(c.poll() is None for c in self.children)

    def end(self):
        for c in self.children:
            c.stdin.close()
            c.wait(60)


def coming(steady, address, count):
    """A crowd that is there, and the p99 of the others until it was."""
    crowd = Crowd(address, count)
    there = threading.Thread(target=crowd.wait_held)
    there.start()
    return crowd, steady.quantiles(until=lambda: not there.is_alive())[1]


def half_open(i, client, tokens, count, seconds, progress):
    s = i.stack
    worker = s.workers[0]
    fleet = s.start_fleet(tokens, "--quiet", workers=[worker])
    out = {"steady": len(tokens), "steady_cmd_s": SLICE / EVERY_S, "strangers": count}
    with Steady(s, client, list(tokens), worker) as steady:
        steady.quantiles(2)
        progress(f"half open: {seconds} s before")
        out["half_open_before_p50_ms"], out["half_open_before_p99_ms"] = steady.quantiles(seconds)
        progress(f"half open: {count:,} connections to a bare listener")
        with BareListener() as bare:
            crowd, out["half_open_elsewhere_p99_ms"] = coming(steady, bare.address, count)
            crowd.end()
        steady.quantiles(2)
        before, rss = prometheus.scrape([worker.admin]), processes.rss_bytes([worker.pid])
        progress(f"half open: {count:,} connections")
        crowd, out["half_open_coming_p99_ms"] = coming(steady, worker.address, count)
        meter, began = processes.Meter({"worker": [worker.pid], "peers": [c.pid for c in crowd.children]}), time.monotonic()
        out["half_open_during_p50_ms"], out["half_open_during_p99_ms"] = steady.quantiles(seconds)
        used, took = meter.read(), time.monotonic() - began
        after = prometheus.scrape([worker.admin])
        out["half_open_rss_growth"] = processes.rss_bytes([worker.pid]) - rss
        crowd.end()
        steady.quantiles(12)  # until those are forgotten that were not closed
        progress(f"half open: {seconds} s after")
        out["half_open_after_p99_ms"] = steady.quantiles(seconds)[1]
    out["half_open_p99_ratio"] = out["half_open_during_p99_ms"] / statistics.mean(
        [out["half_open_before_p99_ms"], out["half_open_after_p99_ms"]])
    out["half_open_coming_ratio"] = out["half_open_coming_p99_ms"] / out["half_open_elsewhere_p99_ms"]
    out["half_open_worker_share"] = used["worker"] / 1e6 / took
    out["half_open_peers_share"] = used["peers"] / 1e6 / took
    out["half_open_dropped"] = sum(after[f"muster_worker_{n}_dropped_total"] - before[f"muster_worker_{n}_dropped_total"]
                                   for n in ("strangers", "handshakes"))
    out["half_open_lost"] = fleet.stats()["lost"]
    fleet.quit()
    return out


def storm(i, client, tokens, others, progress):
    """Every device of `tokens` loses its connection at once and comes back to the worker of the `others`."""
    s = i.stack
    worker = s.workers[0]
    fleet = s.start_fleet(others, "--quiet", workers=[worker])
    crowd = s.start_fleet(tokens, "--quiet", "--handshakes", "10000", "--backoff", "1ms", workers=[worker], wait=False)
    until(lambda: crowd.stats()["ready"] == len(tokens), "the crowd is there")
    out = {"storm": len(tokens)}
    with Steady(s, client, list(others), worker) as steady:
        steady.quantiles(2)
        out["storm_before_p99_ms"] = steady.quantiles(8)[1]
        before, counted = prometheus.scrape([worker.admin]), crowd.stats()["reconnects"]
        progress(f"storm: {len(tokens):,} devices reconnect")
        began = time.monotonic()
        crowd.popen.stdin.write(b"reconnect\n")
        crowd.popen.stdin.flush()
        out["storm_during_p50_ms"], out["storm_during_p99_ms"] = steady.quantiles(
            until=lambda: (c := crowd.stats())["reconnects"] - counted >= len(tokens) and c["ready"] == len(tokens))
        out["storm_seconds"] = time.monotonic() - began
        after = prometheus.scrape([worker.admin])
    grown = {n: after[n] - before[n] for n in after}
    # A device that needed a second connection made the first one fail.
    out["storm_failed"] = grown["muster_worker_accepted_total"] - len(tokens) + grown["muster_worker_accepts_refused_total"]
    for f in (fleet, crowd):
        f.quit()
    return out


def _submits(s, client, ids, seconds):
    """Batches to one device one after another; their times in ms, and how many were refused."""
    import grpc
    pb, times, refused, rng = s.pb, [], 0, random.Random(1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            s.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[rng.choice(ids)])))
        except grpc.RpcError:
            refused += 1
        times.append((time.monotonic() - began) * 1e3)
        time.sleep(0.02)
    return times, refused


def flood(i, small, small_ids, large, large_ids, seconds, progress):
    s = i.stack
    dispatcher = s.dispatchers[0]
    path = os.path.join(i.folder, "flood-ids")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"{d}\n" for d in large_ids)
    connections, streams = 32, 128
    progress("flood: the small tenant alone")
    alone, _ = _submits(s, small, small_ids, seconds)
    rss = processes.rss_bytes([dispatcher.pid])
    progress(f"flood: {connections * streams:,} callers of another tenant")
    load = subprocess.Popen(
        [os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster-submit-load"), "--target", dispatcher.address,
         "--ca", s.certificates.ca, "--api-key", large.key, "--ids", path, "--connections", str(connections), "--streams",
         str(streams), "--warmup", "0s", "--measure", f"{seconds + 2}s"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    time.sleep(1)
    flooded, refused = _submits(s, small, small_ids, seconds)
    told = json.loads(load.communicate(timeout=120)[0])
    began = time.monotonic()
    until(lambda: not i.query("SELECT count(*) FROM batch WHERE closed_ms IS NULL")[0][0], "every batch is closed")
    out = {"callers": connections * streams, "small_refused": refused, "flood_ok_s": told["ok"] / told["seconds"],
           "flood_refused": told["failed"], "flood_behind_s": time.monotonic() - began,
           "flood_rss_growth": processes.rss_bytes([dispatcher.pid]) - rss}
    for name, times in (("alone", alone), ("flooded", flooded)):
        q = statistics.quantiles(times, n=100)
        out[f"small_{name}_p50_ms"], out[f"small_{name}_p99_ms"] = q[49], q[98]
    return out
