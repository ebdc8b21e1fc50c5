"""Everything but the sockets: a worker that answers for every device at once (muster-worker --answer-self)."""
import statistics
import time


class QueuePath:
    """The only worker of an installation, for the `registered` devices of the client's tenant, none of them connected."""

    def __init__(self, installation, client, registered):
        self.installation, self.client, self.registered = installation, client, registered
        self.worker = installation.stack.start_worker("--answer-self")

    def round(self):
        """A batch to all, until it is closed: {"cmd_s", "us": {component: CPU time per command}}."""
        i = self.installation
        meter = i.meter()
        began = time.monotonic()
        batch = i.stack.submit(self.client).batch
        closed = i.wait_closed(self.client, batch.id)
        waited = time.monotonic() - began
        used = meter.read()
        i.succeeded(closed)
        # By the database: from acceptance to the moment the leader has counted every outcome as stored.
        (ms,), = i.query("SELECT closed_ms - created_ms FROM batch WHERE id = %s", batch.id)
        return {"cmd_s": self.registered / min(waited, max(float(ms), 1.0) / 1e3),
                "us": {name: us / self.registered for name, us in used.items()}}

    def stop(self):
        self.worker.stop()


def measure(installation, client, registered, rounds, progress):
    """No other worker runs, no device is connected. The first round is thrown away."""
    path, done = QueuePath(installation, client, registered), []
    for n in range(rounds + 1):
        progress(f"queue path, round {n} of {rounds}")
        done.append(path.round())
    path.stop()
    rates = [r["cmd_s"] for r in done[1:]]
    out = {"queue_cmd_s": statistics.median(rates), "queue_cmd_s_rounds": rates}
    for name in ("dispatcher", "worker", "redis", "pg"):
        out[f"queue_{name}_us_per_cmd"] = statistics.median(r["us"][name] for r in done[1:])
    return out
