"""Commands at half the rate that the core path has just reached, steadily: what a device's answer takes when nothing queues.
Batches of a slice of the devices each, submitted by the clock and not by the answers, so that a stall is seen in full."""
import time

from . import prometheus

SLICES = 50
SECONDS = 6.0


def measure(core, rate, progress):
    """`core` is a sockets.Core; `rate` the commands/s of the whole, half of which is offered."""
    i = core.i
    s, pb = i.stack, i.stack.pb
    share = len(core.ids) // SLICES
    targets = [pb.Target(devices=pb.DeviceIds(ids=core.ids[n * share:(n + 1) * share])) for n in range(SLICES)]
    every, count = share / (rate / 2), max(int(SECONDS * rate / 2 / share), SLICES)
    progress(f"half load: {count} batches of {share} devices, one every {every * 1e3:.1f} ms")
    admins = [w.admin for w in core.workers]
    wanted = core.fleet.stats()["acked"] + count * share
    before, meter, began = prometheus.scrape(admins), i.meter([core.fleet], core.workers), time.monotonic()
    late = 0.0
    for n in range(count):
        due = began + n * every
        time.sleep(max(due - time.monotonic(), 0))
        s.submit(core.client, target=targets[n % SLICES])
        late = max(late, time.monotonic() - due)
    while core.fleet.stats()["acked"] < wanted:
        if time.monotonic() - began > 60:
            raise AssertionError("half load: acknowledgements are missing after 60 s")
        time.sleep(0.02)
    seconds, used = time.monotonic() - began, meter.read()
    after = prometheus.scrape(admins)
    p50, p99, p999 = prometheus.quantiles_ms(before, after, "muster_worker_push_ack_seconds")
    _, submit_p99, _ = prometheus.quantiles_ms(before, after, "muster_worker_submit_push_seconds")
    return {"half_load_cmd_s": count * share / seconds, "half_load_push_ack_p50_ms": p50,
            "half_load_push_ack_p99_ms": p99, "half_load_push_ack_p999_ms": p999,
            "half_load_submit_push_p99_ms": submit_p99, "half_load_latest_submit_ms": late * 1e3,
            "half_load_us": {name: us / (count * share) for name, us in used.items()}}
