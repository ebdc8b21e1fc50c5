"""Redis lost entirely: how long until what was open is in Redis again and flows, and what callers notice meanwhile.

Two pictures. In the one every registered device has an open command, in the inbox of a worker that answers for all of them
(no sockets): what is measured is how fast everything is found again and led to its end. In the other devices are connected
over plain MQTT and work off one batch after another."""
import glob
import os
import shutil
import signal
import statistics
import threading
import time

import grpc

WAYS = ("emptied", "killed")
LIMIT_S = 60
PROBE_S = 0.01


def lose(redis, way):
    """FLUSHALL, or kill -9 and a start without any data."""
    if way == "emptied":
        redis.client().flushall()
        return
    redis.kill()
    for path in glob.glob(os.path.join(redis.folder, "appendonlydir")) + glob.glob(os.path.join(redis.folder, "*.rdb")):
        shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
    redis.restart()


class Probe:
    """Submits a batch for one device every few milliseconds, and keeps how long each answer took."""

    def __init__(self, stack, client, device):
        self.stack, self.client, self.device = stack, client, device
        self.taken, self.failed, self.batches, self.over = [], 0, [], False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        pb = self.stack.pb
        target = pb.Target(devices=pb.DeviceIds(ids=[self.device]))
        while not self.over:
            began = time.monotonic()
            try:
                self.batches.append(self.stack.submit(self.client, target=target).batch.id)
                self.taken.append(time.monotonic() - began)
            except grpc.RpcError:
                self.failed += 1
            time.sleep(PROBE_S)

    def stop(self):
        self.over = True
        self.thread.join()
        taken = sorted(self.taken)
        return {"accept_p50_ms": taken[len(taken) // 2] * 1e3, "accept_max_ms": taken[-1] * 1e3, "accepted": len(taken),
                "accept_failed": self.failed}


def until(look, what):
    """Seconds until look() is true."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > LIMIT_S:
            raise AssertionError(f"not within {LIMIT_S} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def blocks_in_redis(redis, tenant, batch, blocks):
    """How many of its blocks hold the batch."""
    try:
        with redis.pipeline(transaction=False) as p:
            for b in range(blocks):
                p.exists(f"{{t{tenant}.b{b}}}:state:{batch}")
            return sum(p.execute())
    except Exception:  # Redis is away
        return 0


def present(redis, tenant, blocks):
    """How many devices presence names a worker for."""
    try:
        with redis.pipeline(transaction=False) as p:
            for b in range(blocks):
                p.get(f"{{t{tenant}.b{b}}}:presence")
            return sum(1 for text in p.execute() for i in range(0, len(text or b""), 2) if text[i:i + 2] != b"\0\0")
    except Exception:  # Redis is away
        return 0


class Flow(threading.Thread):
    """Watches a batch: when its first and its last command had succeeded."""

    def __init__(self, stack, client, batch):
        super().__init__(daemon=True)
        self.stack, self.client, self.batch = stack, client, batch
        self.first = self.last = None
        self.start()

    def run(self):
        def look(b):
            if b.progress.succeeded and not self.first:
                self.first = time.monotonic()
            return b.state == self.stack.pb.BATCH_STATE_CLOSED
        self.closed = self.stack.watch(self.client, self.batch, look, timeout=LIMIT_S)
        self.last = time.monotonic()


def _medians(rounds, prefix):
    """Of accept_failed the sum, of accept_max_ms the worst."""
    out = {}
    for key in rounds[0]:
        values = [r[key] for r in rounds]
        out[f"{prefix}_{key}"] = (sum(values) if key == "accept_failed" else max(values) if key == "accept_max_ms" else
                                  statistics.median(values))
    return out


# --- 300,000 open commands -------------------------------------------------------------------------------------------

def _open_round(i, client, tenant, probes, worker, registered, way):
    s, blocks = i.stack, (registered + 1023) // 1024
    redis = s.redis.client()
    until(lambda: present(redis, tenant.number, blocks) >= registered, "the worker answers for all")
    worker.signal(signal.SIGSTOP)  # so that all of it stays open
    batch = s.submit(client).batch.id
    i.wait_batches("routed_ms", [batch])
    flow, probe = Flow(s, client, batch), Probe(s, probes[0], probes[1])
    began = time.monotonic()
    lose(s.redis, way)
    back = time.monotonic() - began
    worker.signal(signal.SIGCONT)
    redis = s.redis.client()
    until(lambda: flow.last or blocks_in_redis(redis, tenant.number, batch, blocks) == blocks, "all of it is in Redis")
    stored = time.monotonic() - began
    flow.join(LIMIT_S)
    out = {"redis_back_s": back, "in_redis_s": stored, "first_s": flow.first - began, "all_s": flow.last - began, **probe.stop()}
    i.succeeded(flow.closed)
    i.wait_batches("closed_ms", probe.batches)
    return out


def measure_open(i, registered, rounds, progress):
    s = i.stack
    progress(f"registering {registered:,} devices")
    tenant, other = s.make_tenant(), s.make_tenant()
    client = s.client(tenant, timeout=300)
    s.import_devices(client, [f"device-{n:06d}" for n in range(registered)])
    probes = s.client(other)
    s.import_devices(probes, ["probe"])
    worker, out = s.start_worker("--answer-self", "--lease", "60s"), {}
    for way in WAYS:
        done = []
        for n in range(rounds):
            progress(f"Redis {way}, {registered:,} commands open: round {n + 1} of {rounds}")
            done.append(_open_round(i, client, tenant, (probes, "probe"), worker, registered, way))
        out.update(_medians(done, f"open_{way}"))
    return out


# --- connected devices, under load -----------------------------------------------------------------------------------

class Load(threading.Thread):
    """One batch to all after another."""

    def __init__(self, stack, client):
        super().__init__(daemon=True)
        self.stack, self.client, self.over, self.batches = stack, client, False, []
        self.start()

    def run(self):
        while not self.over:
            try:
                self.batches.append(self.stack.submit(self.client).batch.id)
            except grpc.RpcError:
                continue
            closed = {}
            while not self.over and not closed.get("it"):
                closed["it"] = self.stack.sql("SELECT 1 FROM batch WHERE id = %s AND closed_ms IS NOT NULL", self.batches[-1])
                time.sleep(0.02)


def _acked_since(fleet, acked):
    return fleet.stats()["acked"] > acked


def _connected_round(i, client, tenant, probes, fleet, devices, way):
    s, blocks = i.stack, (devices + 1023) // 1024
    load, probe = Load(s, client), Probe(s, *probes)
    until(lambda: len(load.batches) >= 3, "the load is under way")
    began = time.monotonic()
    lose(s.redis, way)
    back, redis = time.monotonic() - began, s.redis.client()
    until(lambda: present(redis, tenant.number, blocks) >= devices, "presence is announced again")
    announced = time.monotonic() - began
    load.over = True
    load.join()
    last = s.submit(client).batch.id
    i.wait_batches("closed_ms", [*load.batches, last], LIMIT_S)
    out = {"redis_back_s": back, "announced_s": announced, "all_s": time.monotonic() - began, **probe.stop()}
    i.wait_batches("closed_ms", probe.batches)
    return out, [*load.batches, last]


def measure_connected(i, devices, rounds, progress):
    s = i.stack
    progress(f"connecting {devices:,} devices")
    tenant, other = s.make_tenant(), s.make_tenant()
    client, probes = s.client(tenant, timeout=120), s.client(other)
    tokens = s.make_devices(client, devices)
    for _ in range(2):
        s.start_worker("--listen-plain", "127.0.0.1:0", listen="")
    fleet = s.start_fleet(tokens, "--no-tls", "--source", "127.2.0.1")
    probe_token = s.make_devices(probes, 1, prefix="probe")
    s.start_fleet(probe_token, "--no-tls", "--source", "127.3.0.1")
    out, batches = {}, []
    for way in WAYS:
        done = []
        for n in range(rounds):
            progress(f"Redis {way}, {devices:,} devices under load: round {n + 1} of {rounds}")
            one, more = _connected_round(i, client, tenant, (probes, next(iter(probe_token))), fleet, devices, way)
            done.append(one)
            batches += more
        out.update(_medians(done, f"connected_{way}"))
    record = fleet.dump()
    twice = sum(1 for r in record.values() if r[1] != 1)
    if twice or len(record) != devices * len(batches):
        raise AssertionError(f"{twice} commands not executed once, {len(record)} of {devices * len(batches)} known")
    out["redelivered"] = sum(r[0] - 1 for r in record.values()) / len(record)
    return out


def _open_rows(way):
    key = f"open_{way}"
    return [("Redis there again", f"{key}_redis_back_s", "{:,.2f} s", None),
            ("all open commands in Redis", f"{key}_in_redis_s", "{:,.2f} s", None),
            ("first outcome", f"{key}_first_s", "{:,.2f} s", None),
            ("every outcome durable", f"{key}_all_s", "{:,.2f} s", ("max", 5)),
            *_accept_rows(key)]


def _accept_rows(key):
    return [("SubmitBatch meanwhile p50", f"{key}_accept_p50_ms", "{:,.1f} ms", None),
            ("SubmitBatch meanwhile, longest", f"{key}_accept_max_ms", "{:,.1f} ms", ("max", 1000)),
            ("refused", f"{key}_accept_failed", "{:,.0f}", ("max", 0))]


def _connected_rows(way):
    key = f"connected_{way}"
    return [("Redis there again", f"{key}_redis_back_s", "{:,.2f} s", None),
            ("presence announced again", f"{key}_announced_s", "{:,.2f} s", ("max", 5)),
            ("all batches closed", f"{key}_all_s", "{:,.2f} s", ("max", 5)),
            *_accept_rows(key)]


SECTIONS = [
    ("Redis emptied, {registered:,} commands open", _open_rows("emptied")),
    ("Redis killed and begun with nothing, {registered:,} commands open", _open_rows("killed")),
    ("Redis emptied, {devices:,} devices connected and under load", _connected_rows("emptied")),
    ("Redis killed and begun with nothing, {devices:,} devices connected and under load", _connected_rows("killed")),
    ("Sent again to devices that had executed it", [("deliveries a command", "redelivered", "{:.4f}", None)]),
]
