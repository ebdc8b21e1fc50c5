"""Peers and callers that want too much, and what those feel who do not: a fleet that comes all at once, a tenant that floods.
Half-open connections: half_open.py."""
import json
import os
import random
import statistics
import subprocess
import threading
import time

from . import processes, prometheus
from .installation import ROOT

# Commands to the devices that behave: slices of them by the clock.
STEADY, SLICE, EVERY_S = 1000, 20, 0.02

TABLE = [
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

    @staticmethod
    def wait(seconds=None, until=None):
        """For `seconds`, or until `until()` is true; how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < (seconds or 120) and not (until and until()):
            time.sleep(0.05)
        return time.monotonic() - began

    def quantiles(self, seconds=None, until=None):
        """p50 and p99 in ms of what was answered meanwhile."""
        before = prometheus.scrape([self.worker.admin])
        self.wait(seconds, until)
        return prometheus.quantiles_ms(before, prometheus.scrape([self.worker.admin]), "muster_worker_push_ack_seconds")[:2]


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
