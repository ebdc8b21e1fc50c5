"""A value per device beside the same batch without values: over TLS to devices that are connected, and on the queue path to all
that are registered; from the call, its message ready to be sent, to the last outcome. Both list their devices: one by their ids,
the other by their values. They take turns, and the first of each is thrown away."""
import secrets
import statistics
import time

from .installation import Installation

VALUE_BYTES = 16
METHOD = "/muster.v1.CommandService/SubmitBatch"

TABLE = [
    ("A value of 16 bytes per device beside none: {connected:,} devices over TLS, {registered:,} on the queue path", [
        ("over TLS, connected ones: without", "values_tls_plain_ms", "{:,.0f} ms", None),
        ("with", "values_tls_ms", "{:,.0f} ms", None),
        ("with / without", "values_tls_ratio", "{:.2f}", ("max", 2)),
        ("queue path, all: without", "values_queue_plain_ms", "{:,.0f} ms", None),
        ("with", "values_queue_ms", "{:,.0f} ms", None),
        ("with / without", "values_queue_ratio", "{:.2f}", ("max", 2)),
        ("until it is durable: without", "values_accept_plain_ms", "{:,.0f} ms", None),
        ("with", "values_accept_ms", "{:,.0f} ms", None),
        ("of the whole, to all without a list", "values_queue_all_ms", "{:,.0f} ms", None),
        ("PostgreSQL and Redis per device", "values_stored_bytes", "{:,.1f} bytes", None),
    ]),
]


def _request(pb, ids, kind):
    """Encoded; a request id of its own in each."""
    code = "{{code}}" if kind == "values" else "x" * VALUE_BYTES
    r = pb.SubmitBatchRequest(request_id=secrets.token_hex(16), command=pb.Command(lock=pb.LockCommand(passcode=code)))
    if kind == "values":
        r.values.device_ids.extend(ids)
        r.values.variables.add(name="code", values=[secrets.token_hex(VALUE_BYTES // 2).encode() for _ in ids])
    elif kind == "plain":
        r.target.devices.ids.extend(ids)
    else:
        r.target.all = True
    return r.SerializeToString()


class Turns:
    """Batches of each kind in turns: `ms` and `accept_ms` by kind."""

    def __init__(self, installation, client, ids, kinds):
        self.installation, self.client, self.ids, self.pb = installation, client, ids, installation.stack.pb
        self.call = client.channel.unary_unary(METHOD, request_serializer=None,
                                               response_deserializer=self.pb.SubmitBatchResponse.FromString)
        self.ms, self.accept_ms = {k: [] for k in kinds}, {k: [] for k in kinds}

    def one(self, kind):
        request = _request(self.pb, self.ids, kind)
        began = time.perf_counter()
        batch = self.call(request, timeout=120).batch
        accepted = time.perf_counter()
        if kind == "values" and batch.values.device_count != len(self.ids):
            raise AssertionError(f"values of {batch.values.device_count} devices")
        closed = self.installation.wait_closed(self.client, batch.id)
        self.installation.succeeded(closed)
        # The watch tells it some time later: by the database it is closed at this moment after acceptance.
        (ms,), = self.installation.query("SELECT closed_ms - created_ms FROM batch WHERE id = %s", batch.id)
        waited = (time.perf_counter() - began) * 1000
        self.accept_ms[kind].append((accepted - began) * 1000)
        self.ms[kind].append(min(waited, max((accepted - began) * 1000, self._before(batch, began) + float(ms))))

    def _before(self, batch, began):
        """ms from the call until created_ms, which is taken when the message is there and decoded."""
        wall = time.time() - (time.perf_counter() - began)
        return max(0.0, batch.created_at.ToMilliseconds() - wall * 1000)

    def run(self, rounds):
        for n in range(rounds + 1):
            for kind in self.ms:
                self.one(kind)
            if n == 0:
                for kind in self.ms:
                    self.ms[kind].clear()
                    self.accept_ms[kind].clear()
        return {k: statistics.median(v) for k, v in self.ms.items()}, {
            k: statistics.median(v) for k, v in self.accept_ms.items()}


def _stored(installation, client, pb, ids):
    """Bytes per device while the batch is open, in PostgreSQL and in Redis together."""
    redis = installation.redis_bytes()
    call = client.channel.unary_unary(METHOD, request_serializer=None,
                                      response_deserializer=pb.SubmitBatchResponse.FromString)
    batch = call(_request(pb, ids, "values"), timeout=120).batch
    installation.wait_batches("routed_ms", [batch.id])
    (size,), = installation.query("SELECT sum(pg_column_size(vals)) FROM batch_value_block WHERE batch_id = %s", batch.id)
    grown = installation.redis_bytes() - redis
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id))
    installation.wait_closed(client, batch.id)
    return (float(size) + grown) / len(ids)


def measure(field, progress):
    progress(f"a value per device, {field.connected:,} devices over TLS")
    tls, _ = Turns(field.installation, field.client, list(field.tokens), ["plain", "values"]).run(2 * field.rounds)
    progress(f"a value per device, {field.registered:,} devices on the queue path")
    with Installation(0) as own:
        client = own.stack.client(own.stack.make_tenant("values"))
        ids = [f"device-{i:06d}" for i in range(field.registered)]
        own.stack.import_devices(client, ids)
        stored = _stored(own, client, own.stack.pb, ids)
        own.stack.start_worker("--answer-self")
        queue, accept = Turns(own, client, ids, ["plain", "values", "all"]).run(field.rounds)
    return {"values_tls_plain_ms": tls["plain"], "values_tls_ms": tls["values"], "values_tls_ratio": tls["values"] / tls["plain"],
            "values_queue_plain_ms": queue["plain"], "values_queue_ms": queue["values"],
            "values_queue_ratio": queue["values"] / queue["plain"], "values_queue_all_ms": queue["all"],
            "values_accept_plain_ms": accept["plain"], "values_accept_ms": accept["values"], "values_stored_bytes": stored}
