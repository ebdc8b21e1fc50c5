"""Does by hand what a dispatcher does, so that a worker can be tested alone: registers devices, signs tokens, opens batches
in PostgreSQL and Redis, routes them to the worker that presence names."""
import base64
import hashlib
import hmac
import struct
import time
import uuid

QUEUED, ROUTED, SENT, SUCCEEDED, FAILED, REJECTED, TIMED_OUT, EXPIRED, CANCELED = range(2, 11)
KEY_ID, SECRET = 1, b"k" * 32
BLOCK = 1024


def now_ms():
    return int(time.time() * 1000)


def sign(device_id, tenant, seq, key_id=KEY_ID, secret=SECRET, issued=None, expires=None):
    """A token as proto/credential.h lays it out."""
    raw = struct.pack("<IIIQQ", key_id, tenant, seq, issued or now_ms(), expires or now_ms() + 3600_000)
    raw += hmac.new(secret, raw + device_id.encode(), hashlib.sha256).digest()
    return "mt1." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def command_id(batch, tenant, seq):
    return str(uuid.UUID(int=batch << 80 | 0x8 << 76 | 2 << 62 | tenant << 32 | seq))


def varint(v):
    out = b""
    while v > 0x7f:
        out += bytes([v & 0x7f | 0x80])
        v >>= 7
    return out + bytes([v])


class HandRouter:
    def __init__(self, stack, devices=0):
        """Registers `devices` devices of a new tenant; their tokens are signed with SECRET, unless a dispatcher has made a key."""
        self.stack, self.redis, self.pb = stack, stack.redis.client(), stack.pb
        if stack.sql("SELECT count(*) FROM signing_key") == [(0,)]:
            stack.sql("INSERT INTO signing_key (secret, created_ms) VALUES (%s, %s)", SECRET, now_ms())
        (self.tenant,), = stack.sql(
            "INSERT INTO tenant (name, created_ms) VALUES (gen_random_uuid()::text, 0) RETURNING id")
        self.ids = [f"device-{seq}" for seq in range(devices)]
        stack.sql("INSERT INTO device (tenant_id, seq, id, platform, created_ms) SELECT %s, n, 'device-' || n, 5, 0"
                  " FROM generate_series(0, %s - 1) n", self.tenant, devices)
        for block in range((devices + BLOCK - 1) // BLOCK):
            count = min(BLOCK, devices - block * BLOCK)
            slots = ((1 << count) - 1).to_bytes(128, "little")
            stack.sql("INSERT INTO device_block VALUES (%s, %s, 5, %s)", self.tenant, block, slots)
        self.vouch()

    def vouch(self):
        """Says, as a leader does, that Redis holds what it should: a worker that has connected to it waits for that."""
        self.redis.set("muster:generation", self.redis.info("server")["run_id"])

    def token(self, seq, **fields):
        return sign(self.ids[seq], self.tenant, seq, **fields)

    def device(self, seq, **fields):
        """A stock client that is this device."""
        return self.stack.device(self.ids[seq], self.token(seq), **fields)

    # --- batches ---
    def place(self, seq):
        return f"{{t{self.tenant}.b{seq // BLOCK}}}"

    def open(self, seqs, command=None, priority=2, expires_in_ms=3600_000, execution_ms=0, retry_after=0, retry_attempts=15):
        """Accepts a batch for devices of one block and opens it in Redis, QUEUED; its number."""
        pb, seqs = self.pb, sorted(seqs)
        command = command or pb.Command(lock=pb.LockCommand(message="locked"))
        now = now_ms()
        (batch,), = self.stack.sql(
            "INSERT INTO batch (tenant_id, request_id, request_hash, command, priority, device_count, created_ms, expires_ms)"
            " VALUES (%s, gen_random_uuid()::text, '', %s, %s, %s, %s, %s) RETURNING id", self.tenant,
            command.SerializeToString(), priority, len(seqs), now, now + expires_in_ms)
        first = seqs[0] % BLOCK // 8 * 8
        targets = sum(1 << (s % BLOCK - first) for s in seqs)
        self.stack.sql("INSERT INTO batch_block (batch_id, block, first, targets) VALUES (%s, %s, %s, %s)", batch,
                       seqs[0] // BLOCK, first, targets.to_bytes((targets.bit_length() + 7) // 8, "little"))
        self.put_spec(batch, command.SerializeToString(), priority, now, now + expires_in_ms, execution_ms=execution_ms,
                      retry_after=retry_after, retry_attempts=retry_attempts)
        count = seqs[-1] - seqs[0] + 1
        states = bytearray(count)
        for s in seqs:
            states[s - seqs[0]] = QUEUED
        place = self.place(seqs[0])
        self.redis.set(f"{place}:state:{batch}", struct.pack("<BBH", 1, 0, seqs[0] % BLOCK) + bytes(states))
        self.redis.zadd(f"{place}:open", {struct.pack("<HH", seqs[0] % BLOCK, count) + b"%d" % batch: priority * 2 ** 48 + batch})
        return batch

    def put_spec(self, batch, command, priority, created, expires, head_ms=0, execution_ms=0, retry_after=0, retry_attempts=15):
        """`head_ms`: how long a command keeps others of its device back; 0: until it is answered. `execution_ms`: the same, and
        then it ends. `retry_after`: states after which it is tried again, bits; so often."""
        spec = b""
        for field, value in ((1, batch), (2, self.tenant), (3, priority), (5, created), (6, expires), (10, execution_ms),
                             (11, head_ms), (13, retry_after), (14, retry_attempts if retry_after else 0)):
            spec += varint(field << 3) + varint(value)
        self.redis.set(f"batch:{batch}", spec + varint(4 << 3 | 2) + varint(len(command)) + command)

    def presence(self, seq):
        at = seq % BLOCK * 2
        raw = self.redis.getrange(f"{self.place(seq)}:presence", at, at + 1)
        return struct.unpack("<H", raw)[0] if raw else 0

    def state(self, batch, seq):
        """(state, attempts), or None when Redis does not have it."""
        value = self.redis.get(f"{self.place(seq)}:state:{batch}")
        if value is None:
            return None
        byte = value[4 + seq % BLOCK - struct.unpack("<H", value[2:4])[0]]
        return byte % 16, byte // 16

    def route(self, batch, seqs, inbox="normal", told=False):
        """QUEUED to ROUTED for those of one block whose device is connected, and to the inbox of its worker; `told`: together
        with the batch's spec, which is in Redis no more from then on."""
        told = told and self.redis.getdel(f"batch:{batch}")
        workers = {}
        for s in seqs:
            worker = self.presence(s)
            if worker:
                workers.setdefault(worker, []).append(s)
                key = f"{self.place(s)}:state:{batch}"
                value = self.redis.get(key)
                self.redis.setrange(key, 4 + s % BLOCK - struct.unpack("<H", value[2:4])[0], bytes([ROUTED]))
        for worker, mine in workers.items():
            self.push(worker, inbox, struct.pack("<BQIIH", 1, batch, self.tenant, mine[0] // BLOCK, len(mine)) +
                      b"".join(struct.pack("<H", s % BLOCK) for s in mine) +
                      (struct.pack("<BQI", 9, batch, len(told)) + told if told else b""))

    def push(self, worker, inbox, item):
        self.redis.rpush(f"{{w{worker}}}:inbox:{inbox}", item)

    def cancel(self, worker, batch):
        self.push(worker, "urgent", struct.pack("<BQ", 2, batch))

    def revoke(self, worker, seq, before):
        self.push(worker, "urgent", struct.pack("<BIIQ", 4, self.tenant, seq, before))

    # --- what was persisted ---
    def log(self):
        """{(batch, seq): last state byte} of this tenant, over all streams."""
        out = {}
        for _, _, entries in self.stack.sql("SELECT stream, n, entries FROM ack_log ORDER BY stream, n"):
            entries = bytes(entries)
            while entries:
                batch, tenant, count = struct.unpack("<QII", entries[:16])
                for i in range(count):
                    seq, state = struct.unpack("<IB", entries[16 + 5 * i:21 + 5 * i])
                    if tenant == self.tenant:
                        out[batch, seq] = state
                entries = entries[16 + 5 * count:]
        return out
