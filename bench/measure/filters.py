"""Filters over a fleet with tags and attributes: what they cost a caller, and what the labels cost to bring in."""
import random
import statistics
import time

# Each device has a store (one of 1,000, in no order), a ring (one of 5), a version of 60, a model of 40, a department of 30.
STORES, RINGS, VERSIONS, MODELS, DEPARTMENTS = 1000, 5, 60, 40, 30
MESSAGE = 10000

FILTERS = {
    "store": 'os_version < 17.2 and tag = "store-12" and last_seen within 7d',
    "half": "os_version < 17.2 and not tag = ring-1",
    "attribute": "attr.department in (d1, d2, d3) and model startswith iPhone1 and platform = ios",
    "newer": "os_version >= 15.3",
    "prefix": "device_id startswith labelled-",
    "some_prefix": "device_id startswith labelled-0001",
    "ids": "device_id in (labelled-0000007, labelled-0000008)",
    "platform": "platform = ios",
    "seen": "last_seen within 7d",
    "values": "tag startswith store-",
    "exists": "tag exists",
}

TABLE = [
    ("Filters over {labelled:,} devices, as validate_only answers", [
        ('version, tag and last_seen', "filter_store_ms", "{:,.1f} ms", ("max", 1000)),
        ("half of the fleet", "filter_half_ms", "{:,.1f} ms", ("max", 1000)),
        ("attribute, model, platform", "filter_attribute_ms", "{:,.1f} ms", ("max", 1000)),
        ("version", "filter_newer_ms", "{:,.1f} ms", ("max", 1000)),
        ("prefix of all ids", "filter_prefix_ms", "{:,.1f} ms", ("max", 1000)),
        ("of a tenth of a percent", "filter_some_prefix_ms", "{:,.1f} ms", ("max", 1000)),
        ("of every other id, in every block", "filter_mixed_prefix_ms", "{:,.1f} ms", ("max", 1000)),
        ("listed ids", "filter_ids_ms", "{:,.1f} ms", ("max", 1000)),
        ("platform", "filter_platform_ms", "{:,.1f} ms", ("max", 1000)),
        ("last_seen", "filter_seen_ms", "{:,.1f} ms", ("max", 1000)),
        ("1,000 tags by their beginning", "filter_values_ms", "{:,.1f} ms", ("max", 1000)),
        ("any tag: every bitmap there is", "filter_exists_ms", "{:,.1f} ms", ("max", 1000)),
        ("batch to half of the fleet, durable", "filter_submit_ms", "{:,.1f} ms", ("max", 1000)),
        ("import with 5 labels a device", "labelled_import_s", "{:,.1f} s", None),
        ("the same again, nothing changed", "labelled_again_s", "{:,.1f} s", None),
        ("PostgreSQL keeps of labels, a device", "label_bytes", "{:,.0f} bytes", None),
        ("written when all are seen: WAL a device", "seen_wal_bytes", "{:,.2f} bytes", ("max", 4)),
    ]),
]


def _messages(pb, count):
    dice = random.Random(12)
    out = []
    for first in range(0, count, MESSAGE):
        out.append(pb.ImportDevicesRequest(devices=[pb.Device(
            id=f"labelled-{i:07d}", platform=1 + i % 6,
            tags=[f"store-{dice.randrange(STORES)}", f"ring-{dice.randrange(RINGS)}"],
            attributes={"department": f"d{dice.randrange(DEPARTMENTS)}"},
            information=pb.DeviceInformation(os_version=f"{15 + dice.randrange(VERSIONS) // 20}.{dice.randrange(20)}",
                                             model=f"iPhone{dice.randrange(MODELS)}"))
            for i in range(first, min(first + MESSAGE, count))]))
    return out


def _timed(call):
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1000, answer


def _see_all(installation, tenant, count):
    """What workers write when every device has connected within an hour: bytes of WAL a device."""
    blocks = (count + 1023) // 1024
    before = installation.wal_bytes()
    installation.query("SELECT see_devices((extract(epoch FROM clock_timestamp()) / 3600)::integer, array_fill(%s, ARRAY[%s]), "
                       "ARRAY(SELECT generate_series(0, %s)), array_fill(decode(repeat('ff', 128), 'hex'), ARRAY[%s]))",
                       tenant.number, blocks, blocks - 1, blocks)
    return (installation.wal_bytes() - before) / count


def measure(field, progress):
    i, s, pb = field.installation, field.stack, field.pb
    count = field.registered * 10 // 3
    tenant = s.make_tenant("labelled")
    client = s.client(tenant, timeout=600)
    progress(f"importing {count:,} devices with tags and attributes")
    messages = _messages(pb, count)
    results = {"labelled": count}
    for key in ("labelled_import_s", "labelled_again_s"):
        ms, _ = _timed(lambda: client.devices.ImportDevices(iter(messages)))
        results[key] = ms / 1000
    (size,), = i.query("SELECT pg_total_relation_size('label_block') + pg_total_relation_size('label')")
    results["label_bytes"] = int(size) / count
    results["seen_wal_bytes"] = _see_all(i, tenant, count)
    i.query("VACUUM ANALYZE label_block")
    mixed = s.client(s.make_tenant("mixed"), timeout=600)
    s.import_devices(mixed, (f"{('even', 'odd')[n % 2]}-{n:07d}" for n in range(count)))
    lock = pb.Command(lock=pb.LockCommand())
    for name, text in (*FILTERS.items(), ("mixed_prefix", "device_id startswith odd-")):
        progress(f"filter: {text}")
        request = pb.SubmitBatchRequest(command=lock, target=pb.Target(filter=text), validate_only=True)
        asked = mixed if name == "mixed_prefix" else client
        results[f"filter_{name}_ms"] = statistics.median(
            _timed(lambda r=request, a=asked: a.commands.SubmitBatch(r))[0] for _ in range(max(3, field.rounds)))
    ms, answer = _timed(lambda: s.submit(client, target=pb.Target(filter=FILTERS["half"])))
    results["filter_submit_ms"] = ms
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=answer.batch.id))
    i.wait_batches("closed_ms", [answer.batch.id])
    return results
