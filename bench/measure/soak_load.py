"""What a soak does to an installation: several tenants whose callers submit batches of all shapes, watch, cancel, list and export
them, while devices come, go, fail, put off and repeat."""
import concurrent.futures
import random
import threading
import time

import grpc

# Devices of each tenant that are connected, and beside them some that never are: their commands expire.
TENANTS = (1000, 500, 300, 200)
ABSENT = 0.05
GROUP = 100
EXPIRY_S = (8, 40)
# Of batches: one device, some listed, a group, a platform, all.
SHAPES, WEIGHTS = ("one", "listed", "group", "platform", "all"), (45, 25, 15, 9, 6)
CANCELED, WATCHED, LISTED, EXPORTED = 0.1, 0.25, 0.05, 0.05
CALLERS = 12
# A caller's connection is given up after so many batches and made anew.
CALLS_PER_CONNECTION = 200
FLEET = ("--think", "5ms..150ms", "--failed", "0.02", "--rejected", "0.01", "--not-now", "0.005", "--duplicate", "0.01",
         "--crash", "0.002", "--keepalive", "60s", "--resume", "--backoff", "100ms", "--quiet")


class Caller:
    """A tenant's service: its devices, and a connection to each dispatcher in turn."""

    def __init__(self, stack, number, devices):
        self.s, self.pb, self.tenant = stack, stack.pb, stack.make_tenant(f"soak-{number}")
        client = stack.client(self.tenant, timeout=120)
        self.present = [f"soak-{number}-{n:05d}" for n in range(devices)]
        stack.import_devices(client, self.present + [f"absent-{number}-{n:05d}" for n in range(int(devices * ABSENT))])
        self.tokens = stack.tokens(client, self.present)
        self.groups = []
        for n in range(0, devices, GROUP):
            self.groups.append(f"group-{n}")
            client.devices.CreateGroup(self.pb.CreateGroupRequest(name=self.groups[-1], device_ids=self.present[n:n + GROUP]))
        self.connection, self.calls = None, 0

    def client(self):
        if self.connection is None or self.calls % CALLS_PER_CONNECTION == 0:
            if self.connection is not None:
                self.s.clients.remove(self.connection)
                old = self.connection
                threading.Timer(max(EXPIRY_S) + 60, old.close).start()  # calls may be under way
            n = self.calls // CALLS_PER_CONNECTION % len(self.s.dispatchers)
            self.connection = self.s.client(self.tenant, self.s.dispatchers[n])
        self.calls += 1
        return self.connection

    def target(self, rng):
        pb, shape = self.pb, rng.choices(SHAPES, WEIGHTS)[0]
        if shape == "one":
            return pb.Target(devices=pb.DeviceIds(ids=[rng.choice(self.present)]))
        if shape == "listed":
            return pb.Target(devices=pb.DeviceIds(ids=rng.sample(self.present, rng.randint(2, 30))))
        if shape == "group":
            return pb.Target(groups=pb.GroupNames(names=[rng.choice(self.groups)]))
        if shape == "platform":
            return pb.Target(platform=rng.randint(1, 6))
        return pb.Target(all=True)


class Load:
    """start() it, read `commands` and `batches`; stop() waits for the callers. A call that fails is counted in `failed`, and what
    it said kept in `errors`."""

    def __init__(self, stack, batches_per_s, seed=1):
        self.s, self.pb, self.rng = stack, stack.pb, random.Random(seed)
        self.every = 1 / batches_per_s
        self.callers = [Caller(stack, n, devices) for n, devices in enumerate(TENANTS)]
        self.fleet = None
        self.commands = self.batches = self.canceled = self.watched = self.failed = 0
        self.errors = {}
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(CALLERS)
        self.thread = threading.Thread(target=self._submit_by_the_clock, daemon=True)

    def start(self, churn):
        tokens = {d: t for c in self.callers for d, t in c.tokens.items()}
        self.fleet = self.s.start_fleet(tokens, *FLEET, "--churn", churn)
        self.thread.start()
        return self

    def stop(self):
        self.ending.set()
        self.thread.join(60)
        self.pool.shutdown(wait=True)

    def _submit_by_the_clock(self):
        due = time.monotonic()
        while not self.ending.wait(max(due - time.monotonic(), 0)):
            due = max(due + self.every, time.monotonic() - 1)
            caller = self.rng.choice(self.callers)
            self._count(self._batch, caller, caller.client())

    def _batch(self, caller, client):
        pb, rng = self.pb, self.rng
        expires = pb.Batch().expires_at
        expires.FromMilliseconds(int((time.time() + rng.uniform(*EXPIRY_S)) * 1000))
        batch = self.s.submit(client, target=caller.target(rng), priority=rng.randint(1, 3), expires_at=expires,
                              description="soak").batch
        with self.lock:
            self.batches += 1
            self.commands += batch.device_count
        what = rng.random()
        if what < CANCELED:
            self.pool.submit(self._count, self._cancel, client, batch.id, rng.random())
        elif what < CANCELED + WATCHED:
            self.pool.submit(self._count, self._watch, client, batch.id)
        elif what < CANCELED + WATCHED + LISTED:
            self.pool.submit(self._count, self.s.list_commands, client, batch.id)
        elif what < CANCELED + WATCHED + LISTED + EXPORTED:
            self.pool.submit(self._count, self._export, client, batch.id)

    def _cancel(self, client, batch_id, after):
        self.ending.wait(after)
        client.commands.CancelBatch(self.pb.CancelBatchRequest(batch_id=batch_id))
        with self.lock:
            self.canceled += 1

    def _watch(self, client, batch_id):
        """Not always to the end: a caller may lose interest."""
        patience = time.monotonic() + 5
        self.s.watch(client, batch_id, lambda b: b.state == self.pb.BATCH_STATE_CLOSED or time.monotonic() > patience)
        with self.lock:
            self.watched += 1

    def _export(self, client, batch_id):
        for _ in client.commands.ExportCommands(self.pb.ExportCommandsRequest(batch_id=batch_id)):
            pass

    def _count(self, call, *args):
        try:
            call(*args)
        except (grpc.RpcError, AssertionError) as e:
            said = f"{e.code().name}: {e.details()}" if isinstance(e, grpc.RpcError) else str(e)
            with self.lock:
                self.failed += 1
                if len(self.errors) < 20 or said in self.errors:
                    self.errors[said] = self.errors.get(said, 0) + 1
