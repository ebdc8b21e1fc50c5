"""Everything of one installation: database, Redis, dispatchers, workers, fleets, tenants."""
import hashlib
import os
import secrets
import time

from .daemons import Daemon, Fleet, cli, program
from .device import Device
from .until import until

ADMIN, OPERATOR, READ_ONLY = 1, 2, 3


def make_schema(postgres):
    """Makes a database with the schema, of which those of stacks are copies: a dispatcher takes longer to make it."""
    name = postgres.create_database("schema")
    cli("migrate", "--postgres", postgres.conninfo(name), check=0)
    postgres.stacks_from = name


class Tenant:
    def __init__(self, name, number, key):
        self.name, self.number, self.key = name, number, key


class Stack:
    """Flags for every program of one kind can be given: Stack(…, dispatcher_flags=[…], worker_flags=[…])."""

    def __init__(self, folder, postgres, redis, certificates, stubs, dispatcher_flags=(), worker_flags=()):
        self.folder, self.postgres, self.redis = str(folder), postgres, redis
        self.certificates, self.stubs, self.pb = certificates, stubs, stubs.pb
        self.database = postgres.create_database(template=postgres.stacks_from)
        self.conninfo = postgres.conninfo(self.database)
        self.dispatcher_flags, self.worker_flags = list(dispatcher_flags), list(worker_flags)
        self.dispatchers, self.workers, self.fleets, self.clients = [], [], [], []
        self.replaced = []
        self.count = 0

    def _log(self, name):
        self.count += 1
        return os.path.join(self.folder, f"{name}-{self.count}.log")

    def _common(self):
        return ["--postgres", self.conninfo, "--redis", self.redis.url, "--tls-cert", self.certificates.cert,
                "--tls-key", self.certificates.key, "--admin-listen", "127.0.0.1:0", "--log-level", "debug"]

    def start_dispatcher(self, *flags, listen="127.0.0.1:0", wait=True, under=(), env=None):
        d = Daemon("muster-dispatcher", [*self._common(), "--listen", listen, *self.dispatcher_flags, *flags],
                   self._log("dispatcher"), env=env, wait=wait, under=under)
        self.dispatchers.append(d)
        return d

    def start_worker(self, *flags, listen="127.0.0.1:0", wait=True, under=(), env=None):
        w = Daemon("muster-worker", [*self._common(), "--listen", listen, *self.worker_flags, *flags],
                   self._log("worker"), env=env, wait=wait, under=under)
        self.workers.append(w)
        return w

    def start(self, dispatchers=1, workers=1):
        """The first dispatcher leads, and has filled Redis before there is another one or a worker."""
        for number in range(dispatchers):
            self.start_dispatcher()
            if number == 0:
                until(self.filled, what="a leader, and Redis filled")
        for _ in range(workers):
            self.start_worker()
        return self

    def filled(self):
        """Whether a leader has filled Redis."""
        return not (self.redis.client().get("muster:generation") or b"filling").startswith(b"filling")

    def restart(self, daemon):
        """Starts a dispatcher or worker again with the same flags on the same address; replaces it in its list."""
        again = Daemon(daemon.name, self._relisten(daemon), daemon.log_path)
        group = self.dispatchers if daemon in self.dispatchers else self.workers
        group[group.index(daemon)] = again
        self.replaced.append(daemon)
        return again

    @staticmethod
    def _relisten(daemon):
        flags = list(daemon.flags)
        flags[flags.index("--listen" if daemon.ready["listen"] else "--listen-plain") + 1] = daemon.address
        return flags

    def begin_empty(self):
        """Before anything is started: a database without a schema."""
        self.postgres.drop_database(self.database)
        self.database = self.postgres.create_database()
        self.conninfo = self.postgres.conninfo(self.database)
        return self

    # --- SQL ---
    def sql(self, text, *args):
        """Rows of a query."""
        c = self.postgres.connect(self.database)
        try:
            cursor = c.cursor()
            cursor.execute(text, args or None)
            return cursor.fetchall() if cursor.description else []
        finally:
            c.close()

    # --- tenants and callers ---
    def make_tenant(self, name=None, role=ADMIN):
        """A tenant with one key, made in the database, as any first one must be."""
        self.count += 1
        name = name or f"tenant-{self.count}"
        now = int(time.time() * 1000)
        (number,), = self.sql("INSERT INTO tenant (name, created_ms) VALUES (%s, %s) RETURNING id", name, now)
        return Tenant(name, number, self.make_key(number, role))

    def make_key(self, tenant_number, role):
        secret = secrets.token_bytes(32)
        (key,), = self.sql("INSERT INTO api_key (tenant_id, role, secret_hash, created_ms) VALUES (%s, %s, %s, %s) RETURNING id",
                           tenant_number, role, hashlib.sha256(secret).digest(), int(time.time() * 1000))
        return f"muster_{key}_{secret.hex()}"

    def client(self, key=None, dispatcher=None, timeout=60, options=()):
        """A gRPC client of `dispatcher` (default: the first); `key` is a Tenant, a key or None."""
        d = dispatcher or self.dispatchers[0]
        c = self.stubs.client(d.address, self.certificates.ca_bytes(), getattr(key, "key", key), timeout, options)
        self.clients.append(c)
        return c

    # --- devices ---
    def import_devices(self, client, ids, platforms=(1, 2, 3, 4, 5, 6)):
        """Registers `ids`, platforms in turn."""
        pb, ids = self.pb, list(ids)

        def messages():
            for i in range(0, len(ids), 5000):
                yield pb.ImportDevicesRequest(devices=[
                    pb.Device(id=d, platform=platforms[(i + n) % len(platforms)]) for n, d in enumerate(ids[i:i + 5000])])
        return client.devices.ImportDevices(messages())

    def tokens(self, client, ids, **fields):
        """{device id: token}"""
        out, ids = {}, list(ids)
        for i in range(0, len(ids), 10000):
            answer = client.devices.IssueCredentials(self.pb.IssueCredentialsRequest(device_ids=ids[i:i + 10000], **fields))
            out.update({c.device_id: c.token for c in answer.credentials})
        return out

    def make_devices(self, client, count, prefix="device", platforms=(1, 2, 3, 4, 5, 6)):
        """Registers `count` devices; {id: token} in the order of registration."""
        return self.register(client, *(f"{prefix}-{i:06d}" for i in range(count)), platforms=platforms)

    def register(self, client, *ids, **kwargs):
        """Registers devices; {id: token}."""
        self.import_devices(client, ids, **kwargs)
        return self.tokens(client, ids)

    def device(self, device_id, token, **kwargs):
        return Device(self.stubs, device_id, token, self.certificates.ca, **kwargs)

    def start_fleet(self, tokens, *flags, workers=None, wait=True):
        """A muster-fleet of the devices of `tokens` on `workers` (default: all)."""
        credentials = os.path.join(self.folder, f"credentials-{self.count}-{len(self.fleets)}")
        with open(credentials, "w", encoding="ascii") as f:
            f.writelines(f"{d} {t}\n" for d, t in tokens.items())
        connect = ",".join(w.address for w in workers or self.workers)
        fleet = Fleet(["--connect", connect, "--credentials", credentials, "--devices", len(tokens), "--ca",
                       self.certificates.ca, *flags], credentials + ".record", self._log("fleet"))
        self.fleets.append(fleet)
        return fleet.wait_ready() if wait else fleet

    # --- batches ---
    def submit(self, client, **fields):
        """Submits a batch (default: lock everybody) and answers the SubmitBatchResponse."""
        pb = self.pb
        fields.setdefault("request_id", secrets.token_hex(16))
        fields.setdefault("command", pb.Command(lock=pb.LockCommand(message="locked")))
        fields.setdefault("target", pb.Target(all=True))
        return client.commands.SubmitBatch(pb.SubmitBatchRequest(**fields))

    def watch(self, client, batch_id, until=None, timeout=120):
        """Watches until `until(batch)` is true (default: closed); that batch."""
        done = until or (lambda b: b.state == self.pb.BATCH_STATE_CLOSED)
        call = client.commands.WatchBatch(self.pb.WatchBatchRequest(batch_id=batch_id, interval_ms=100), timeout=timeout)
        last = None
        for message in call:
            last = message.batch
            if done(last):
                call.cancel()
                return last
        raise AssertionError(f"the watch ended early: {last}")

    def wait_routed(self, *batch_ids):
        """Until each of them stands in Redis: who connects from then on gets them in their order."""
        until(lambda: not self.sql("SELECT 1 FROM batch WHERE id = ANY (%s) AND routed_ms IS NULL", list(batch_ids)),
              what=f"{batch_ids} routed")

    def list_commands(self, client, batch_id, **fields):
        """Every command of a batch, over all pages."""
        out, token = [], ""
        while True:
            answer = client.commands.ListCommands(
                self.pb.ListCommandsRequest(batch_id=batch_id, page_size=10000, page_token=token, **fields))
            out += answer.commands
            token = answer.next_page_token
            if not token:
                return out

    def cli_env(self, key=None, dispatcher=None):
        """Environment for the command line."""
        d = dispatcher or (self.dispatchers[0] if self.dispatchers else None)
        env = {"MUSTER_POSTGRES": self.conninfo, "MUSTER_REDIS": self.redis.url, "MUSTER_CA": self.certificates.ca}
        if d:
            env["MUSTER_TARGET"] = d.address
        if key:
            env["MUSTER_API_KEY"] = getattr(key, "key", key)
        return env

    # --- end ---
    def stop(self, drop=True):
        """Takes everything down; complains about a daemon that does not end by itself or ends badly. To drop the database takes
        a checkpoint, which one whose server ends with it is spared."""
        wrong = []
        for c in self.clients:
            c.close()
        for p in [*self.fleets, *self.workers, *self.dispatchers]:
            was_alive, fault = p.alive(), p.fault()
            try:
                status = p.stop()
            except AssertionError as e:
                wrong.append(str(e))
                continue
            if was_alive and status != 0:
                wrong.append(f"{p.name} ended with {status}:\n" + "\n".join(p.lines[-40:]))
            if fault:
                wrong.append(fault)
        wrong += [fault for fault in (p.fault() for p in self.replaced) if fault]
        if drop:
            self.postgres.drop_database(self.database)
        assert not wrong, "\n".join(wrong)


def have(*names):
    """Whether these programs are built."""
    return all(os.access(program(n), os.X_OK) for n in names)
