"""Many open batches: what they weigh, what a device that comes back costs, what it costs that nothing happens.

All devices are registered, some are connected (real ones, plain MQTT) and answer nothing, so that every batch stays open.
Redis's own time of a script is what its SLOWLOG says; attach is one script."""
import statistics
import time

from . import processes, scale

RETURNING = 1000  # devices that come back one by one,
RETURNS_S = 50    # so many a second, while nothing else happens
SLOW_US = 1000   # a script that takes longer makes others wait,
SCRIPT_US = 10   # and one of many batches never takes less than this; the calls it makes do, and are not logged


class SlowLog:
    """Scripts that Redis ran for at least `slower_than` µs: since it was begun, or since the last read."""

    def __init__(self, redis, slower_than):
        self.redis = redis
        redis.config_set("slowlog-max-len", 200000)
        self.begin(slower_than)

    def begin(self, slower_than):
        self.redis.config_set("slowlog-log-slower-than", slower_than)
        self.redis.slowlog_reset()

    def read(self):
        """[(µs, name or hash of the script, keys and arguments)]"""
        entries = [(e["duration"], e["command"].split(b" ")) for e in self.redis.slowlog_get(200000)]
        self.redis.slowlog_reset()
        return [(us, words[1], words[2:]) for us, words in entries if words[0].upper() == b"EVALSHA"]

    def end(self):
        self.redis.config_set("slowlog-log-slower-than", -1)


def _shaped_like_attach(words):
    """Keys presence and open; worker, prefix, slots. detach is shaped like it."""
    return words[0] == b"2" and words[1].endswith(b":presence") and words[2].endswith(b":open") and len(words) >= 6


def _attach_hash(log):
    """While devices only come and nobody leaves, what is shaped like attach is attach."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for _, script, words in log.read():
            if _shaped_like_attach(words):
                return script
        time.sleep(0.05)
    raise AssertionError("Redis ran no script attach within 60 s")


def _percentile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def _submit(i, client, a):
    s, ids = i.stack, []
    redis, pg = i.redis_bytes(), i.batch_bytes()
    began = time.monotonic()
    for _ in range(a.batches):
        ids.append(s.submit(client).batch.id)
    accepted = time.monotonic() - began
    i.wait_batches("routed_ms", ids)
    commands = a.batches * a.registered
    return {"open_accept_ms": accepted / a.batches * 1e3, "open_routed_s": time.monotonic() - began,
            "open_redis_bytes": (i.redis_bytes() - redis) / commands, "open_pg_bytes": (i.batch_bytes() - pg) / commands}


class Held(scale.Fleet):
    """Devices that take commands and answer none; counts the scripts that were slow while they connected."""

    def __init__(self, installation, client, tokens, log, progress):
        self.log, self.attach = log, None
        super().__init__(installation, client, tokens, "plain", progress, "--hold")

    def _wait_connected(self, began):
        self.attach = _attach_hash(self.log)
        self.log.begin(SLOW_US)
        super()._wait_connected(began)


def _slow(entries, attach):
    own = [us for us, script, _ in entries if script == attach]
    return {"scripts": len(entries), "attaches": len(own), "longest_us": max((us for us, _, _ in entries), default=0)}


def _returns(i, log, attach, tokens, progress):
    """Devices come back one at a time; µs of Redis for each attach."""
    fleet = i.stack.start_fleet(tokens, "--no-tls", "--quiet", "--hold", "--churn", RETURNS_S)
    time.sleep(2.0)
    log.begin(SCRIPT_US)
    begun = fleet.stats()["reconnects"]
    meter = i.meter()
    while (n := fleet.stats()["reconnects"] - begun) < RETURNING:
        time.sleep(0.1)
    used = meter.read()
    us = [t for t, script, _ in log.read() if script == attach]
    log.begin(SLOW_US)
    fleet.quit()
    if len(us) < RETURNING * 0.9:
        raise AssertionError(f"{len(us)} scripts attach for {n} devices that came back")
    progress(f"  {len(us)} attaches")
    return {"attach_p50_us": statistics.median(us), "attach_p99_us": _percentile(us, 0.99), "attach_max_us": max(us),
            "return_redis_us": used["redis"] / n, "return_worker_us": used["worker"] / n}


def _restart(i, held, log):
    """One worker ends orderly and comes back: its devices leave and return, all with everything open."""
    worker, s = i.stack.workers[0], i.stack
    log.begin(SLOW_US)
    meter, began = processes.Meter({"redis": [i.redis.process.pid]}), time.monotonic()
    worker.stop(60)
    stopped = time.monotonic() - began
    s.restart(worker)
    while held.fleet.stats()["ready"] < held.devices:
        if time.monotonic() - began > 300:
            raise AssertionError(f"after a restart not all devices came back within 300 s: {held.fleet.stats()}")
        time.sleep(0.1)
    seconds, used = time.monotonic() - began, meter.read()
    slow, moved = _slow(log.read(), held.attach), held.devices / len(s.workers)
    return {"restart_drain_s": stopped, "restart_s": seconds, "restart_devices": moved,
            "restart_redis_us": used["redis"] / moved, "restart_slow_scripts": slow["scripts"],
            "restart_longest_us": slow["longest_us"]}


def measure(i, a, progress):
    s = i.stack
    client = s.client(s.make_tenant("open"), timeout=300)
    scale.start_workers(s, a.workers, "plain")
    progress(f"registering {a.registered:,} devices")
    ids = [f"device-{n:07d}" for n in range(a.registered)]
    s.import_devices(client, ids)
    tokens = list(s.tokens(client, ids[:a.devices]).items())
    progress(f"{a.batches} batches to all of them")
    out = _submit(i, client, a)
    log = SlowLog(i.redis.client(), SCRIPT_US)
    progress(f"connecting {a.devices - RETURNING:,} devices, each to everything that is open for it")
    held = Held(i, client, dict(tokens[:-RETURNING]), log, progress)
    slow = _slow(log.read(), held.attach)
    out |= {"storm_s": held.seconds, "storm_rate": held.devices / held.seconds, "storm_slow_scripts": slow["scripts"],
            "storm_longest_us": slow["longest_us"], **{f"storm_{name}_us": us for name, us in held.cpu.items()}}
    time.sleep(5.0)  # that commands are SENT is recorded after a second
    out |= {f"storm_{name}_bytes": value for name, value in held.weigh().items()}
    progress("idle")
    out |= {f"idle_{name}_us_s" if name != "pings" else "idle_pings_s": v for name, v in held.idle(a.idle).items()}
    progress("devices that come back one by one")
    out |= _returns(i, log, held.attach, dict(tokens[-RETURNING:]), progress)
    out["faults"] = {name: n for name, n in held.faults().items() if n}
    out["fault_count"] = sum(out["faults"].values())
    progress("one worker restarts")
    out |= _restart(i, held, log)
    log.end()
    # All at once: giving back what hundreds of thousands of devices have open would take a while.
    for process in [*s.workers, held.fleet]:
        process.kill()
    return out
