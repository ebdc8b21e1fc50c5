"""Small batches: commands to one device each, submitted by many callers over gRPC and TLS, each answered only when it is
durable (muster-submit-load). The whole way is on: a worker answers for every device, and every batch is closed."""
import json
import os
import subprocess
import time

from . import processes
from .installation import ROOT

GOAL_PER_S = 5000
CONNECTIONS = 16
STREAMS = 16


def _load(installation, key, ids_path, *flags):
    s = installation.stack
    program = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster-submit-load")
    done = subprocess.run(
        [program, "--target", s.dispatchers[0].address, "--ca", s.certificates.ca, "--api-key", key, "--ids", ids_path,
         "--connections", str(CONNECTIONS), "--streams", str(STREAMS), *map(str, flags)],
        capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise AssertionError(f"muster-submit-load ended with {done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def _last_batch(installation):
    (last,), = installation.query("SELECT coalesce(max(id), 0) FROM batch")
    return last


def _wait_closed(installation, after):
    """Until every batch behind `after` is closed; seconds it took."""
    began = time.monotonic()
    while True:
        (left,), = installation.query("SELECT count(*) FROM batch WHERE closed_ms IS NULL AND id > %s", after)
        if not left:
            return time.monotonic() - began
        if time.monotonic() - began > 120:
            raise AssertionError(f"{left} batches are not closed after 120 s")
        time.sleep(0.05)


def _closing(installation, after):
    """From acceptance to the end, of the batches behind `after`: (p50, p99, max) in ms."""
    (row,) = installation.query("SELECT percentile_disc(array[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY closed_ms - created_ms)"
                                " FROM batch WHERE id > %s", after)
    return [float(v) for v in row[0]]


def _round(installation, key, ids_path, seconds, *flags):
    """One load until its last batch is closed: what the generator says, with µs of CPU per batch of each component."""
    after = _last_batch(installation)
    meter = installation.meter()
    out = _load(installation, key, ids_path, "--warmup", "1s", "--measure", f"{seconds}s", *flags)
    out["behind_s"] = _wait_closed(installation, after)
    (batches,), = installation.query("SELECT count(*) FROM batch WHERE id > %s", after)
    out["us"] = {name: us / batches for name, us in meter.read().items() if name != "fleet"}
    out["us"]["generator"] = out.pop("own_cpu_us_per_call")
    out["closing_ms"] = _closing(installation, after)
    return out


def measure(installation, tenant, ids, seconds, progress):
    """`ids` are registered devices of the tenant; a worker that answers for them is up."""
    ids_path = os.path.join(installation.folder, "submit-ids")
    with open(ids_path, "w", encoding="ascii") as f:
        f.writelines(f"{i}\n" for i in ids)
    dispatcher = [d.pid for d in installation.stack.dispatchers]
    progress(f"small batches: {CONNECTIONS * STREAMS} callers, as fast as they are answered, {seconds} s")
    whole = _round(installation, tenant.key, ids_path, seconds)
    progress(f"small batches: {GOAL_PER_S // 2:,}/s, {seconds} s")
    half = _round(installation, tenant.key, ids_path, seconds, "--rate", GOAL_PER_S // 2)
    rss = processes.rss_bytes(dispatcher)
    progress(f"small batches: {GOAL_PER_S:,}/s, {seconds} s")
    goal = _round(installation, tenant.key, ids_path, seconds, "--rate", GOAL_PER_S)
    out = {
        "submit_per_s": whole["per_second"],
        "submit_p50_ms": half["p50_ms"],
        "submit_p99_ms": half["p99_ms"],
        "submit_p999_ms": half["p999_ms"],
        "submit_goal_per_s": goal["per_second"],
        "submit_goal_p99_ms": goal["p99_ms"],
        "submit_goal_closing_p50_ms": goal["closing_ms"][0],
        "submit_goal_closing_p99_ms": goal["closing_ms"][1],
        "submit_goal_behind_s": goal["behind_s"],
        "submit_dispatcher_growth": processes.rss_bytes(dispatcher) - rss,
        "submit_rounds": {"whole": whole, "half": half, "goal": goal},
    }
    for name, us in half["us"].items():
        out[f"submit_{name}_us"] = us
    return out
