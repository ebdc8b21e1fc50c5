"""A worker is taken away and its devices come back at another: what each costs that worker, with a full TLS handshake and with
its session resumed under the keys that all workers share."""
import time

from . import processes

WAIT_S = 120


def _move(installation, tokens, flags):
    """Half of the devices move; µs per device of each component, and devices/s."""
    s = installation.stack
    fleet = s.start_fleet(tokens, "--quiet", "--backoff", "50ms", *flags)
    leaving, staying = s.workers[0], s.workers[1:]
    moving = len(tokens) // len(s.workers)
    meter = processes.Meter({**installation.components([fleet]), "worker": [w.pid for w in staying]})
    before, began = fleet.stats()["reconnects"], time.monotonic()
    leaving.stop()
    while (stats := fleet.stats())["ready"] < len(tokens) or stats["reconnects"] - before < moving:
        if time.monotonic() - began > WAIT_S:
            raise AssertionError(f"reconnect: {stats['ready']} of {len(tokens)} devices are back after {WAIT_S} s")
        time.sleep(0.05)
    seconds, used = time.monotonic() - began, meter.read()
    fleet.quit()
    s.restart(leaving)
    return {name: us / moving for name, us in used.items()}, moving / seconds


def measure(installation, tokens, progress):
    out = {}
    for name, flags in (("full", ()), ("resumed", ("--resume",))):
        progress(f"reconnect: half of {len(tokens):,} devices to another worker, {name}")
        us, rate = _move(installation, tokens, flags)
        out.update({f"reconnect_{name}_worker_us": us["worker"], f"reconnect_{name}_fleet_us": us["fleet"],
                    f"reconnect_{name}_redis_us": us["redis"], f"reconnect_{name}_s": rate})
    out["reconnect_resumed_to_full"] = out["reconnect_resumed_worker_us"] / out["reconnect_full_worker_us"]
    return out
