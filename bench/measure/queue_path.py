"""Everything but the sockets: a worker that answers for every device at once (muster-worker --answer-self)."""
import statistics
import time


def measure(installation, client, registered, rounds, progress):
    """No other worker runs, no device is connected."""
    s = installation.stack
    worker = s.start_worker("--answer-self")
    rates, costs = [], []
    for n in range(rounds + 1):
        progress(f"queue path, round {n} of {rounds}")
        meter = installation.meter()
        began = time.monotonic()
        batch = s.submit(client).batch
        closed = installation.wait_closed(client, batch.id)
        waited = time.monotonic() - began
        used = meter.read()
        installation.succeeded(closed)
        # By the database: from acceptance to the moment the leader has counted every outcome as stored.
        (ms,), = installation.query("SELECT closed_ms - created_ms FROM batch WHERE id = %s", batch.id)
        if n:
            rates.append(registered / min(waited, max(float(ms), 1.0) / 1e3))
            costs.append({name: us / registered for name, us in used.items()})
    worker.stop()
    out = {"queue_cmd_s": statistics.median(rates), "queue_cmd_s_rounds": rates}
    for name in ("dispatcher", "worker", "redis", "pg"):
        out[f"queue_{name}_us_per_cmd"] = statistics.median(c[name] for c in costs)
    return out
