"""The core and the queue path with 1, 2 and 4 workers pinned to the cores: what a command costs must stay as it is."""
import os

from .connected import Connected
from .figures import median_of
from .gauge import Gauge, without_base

COMPONENTS = ("accept", "leader", "worker", "redis", "pg")


def pin(workers):
    """One core each, in turn, as taskset does."""
    cores = sorted(os.sched_getaffinity(0))
    for n, w in enumerate(workers):
        os.sched_setaffinity(w.pid, {cores[n % len(cores)]})


def per_command(reading):
    return {name: reading[name] / reading["commands"] for name in COMPONENTS}


def start_workers(stack, count, *flags):
    """In place of those that run."""
    stop_workers(stack)
    workers = [stack.start_worker(*flags) for _ in range(count)]
    pin(workers)
    return workers


def stop_workers(stack):
    for w in stack.workers:
        w.stop()
    stack.workers.clear()


def core_path(installation, client, tokens, workers, base, rounds, progress):
    """(the Connected, still there; the median reading of a round)"""
    progress(f"core path, {workers} workers: connecting {len(tokens):,} devices")
    start_workers(installation.stack, workers)
    fleet = Connected(installation, client, tokens, base)
    fleet.round()
    progress(f"core path, {workers} workers: {rounds} rounds")
    return fleet, median_of([fleet.round() for _ in range(rounds)])


def queue_path(installation, client, registered, workers, base, rounds, progress):
    """The median reading of a round: a batch to all, answered by the workers themselves."""
    s = installation.stack
    stop_workers(s)
    for share in range(workers):
        s.start_worker("--answer-self", "--answer-shares", workers, "--answer-share", share)
    pin(s.workers)
    progress(f"queue path, {workers} workers: {rounds} rounds")
    readings = []
    for _ in range(rounds + 1):
        gauge = Gauge(installation)
        batch = s.submit(client).batch
        installation.wait_batches("closed_ms", [batch.id])
        (ms,), = installation.query("SELECT closed_ms - created_ms FROM batch WHERE id = %s", batch.id)
        read = without_base(gauge.read(), base)
        readings.append({"commands": registered, "batches": 1, "blocks": (registered + 1023) // 1024,
                         "rate": registered / max(float(ms), 1.0) * 1e3, "answer_s": float(ms) / 1e3, **read})
    return median_of(readings[1:])
