"""What filters find quickly: ids by their beginning, whole blocks at a time, and labels by who has none of the others."""
import random

import grpc
import pytest

BLOCK = 1024


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


def matched(api, client, text):
    """Numbers of the devices that a filter matches."""
    try:
        answer = api.submit(client, target=api.pb.Target(filter=text))
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.FAILED_PRECONDITION and "addresses no device" in e.details(), e
        return set()
    return {block * BLOCK + first + 8 * i + k
            for block, first, bits in api.sql("SELECT block, first, targets FROM batch_block WHERE batch_id = %s", answer.batch.id)
            for i, byte in enumerate(bytes(bits)) for k in range(8) if byte >> k & 1}


def count(api, client, text):
    pb = api.pb
    return client.commands.SubmitBatch(pb.SubmitBatchRequest(command=pb.Command(lock=pb.LockCommand()), validate_only=True,
                                                             target=pb.Target(filter=text))).batch.device_count


def register(api, tenant, ids):
    api.sql("SELECT import_devices(%s, %s, array_fill(1::smallint, ARRAY[cardinality(%s)]), 0)", tenant.number, ids, ids)


def test_ids_by_their_beginning(api):
    """Blocks that begin alike, that don't, and that both names share; more of the last than are looked through one by one."""
    tenant = api.make_tenant()
    client = api.client(tenant)
    ids = [f"a-{n:05d}" for n in range(2 * BLOCK + 100)]       # two whole blocks and a part,
    ids += [f"b-{n:05d}" for n in range(BLOCK)]                # of which b has the rest,
    ids += [f"{'xy'[n % 2]}-{n:05d}" for n in range(40 * BLOCK)]  # and 40 that x and y share
    for first in range(0, len(ids), 10000):
        register(api, tenant, ids[first:first + 10000])
    for prefix in ("a", "a-000", "a-01023", "a-0102", "b-", "b-0092", "A", "a.", "z", "x-4", "a-99", "-"):
        assert matched(api, client, f'device_id startswith "{prefix}"') == \
            {n for n, i in enumerate(ids) if i.startswith(prefix)}, prefix
    assert count(api, client, "device_id startswith x") == 20 * BLOCK
    assert count(api, client, "device_id startswith x or device_id startswith y-") == 40 * BLOCK
    # The first and the last of a block, and one in between, are no more.
    for gone in ("a-00000", "a-01023", "a-00500"):
        client.devices.DeleteDevice(api.pb.DeleteDeviceRequest(device_id=gone))
    assert matched(api, client, "device_id startswith a-0") == set(range(2 * BLOCK + 100)) - {0, 500, 1023}
    # Whoever comes into a block that another has begun.
    register(api, tenant, ["a-late"])
    assert matched(api, client, "device_id startswith a-l") == {len(ids)}


def test_labels_that_change_again_and_again(api):
    """`exists`, and tests that most of the values meet, after rounds of imports that add, change, take away and replace."""
    pb, dice = api.pb, random.Random(7)
    client = api.client(api.make_tenant())
    n = 1300
    has = [{"tags": set(), "level": "", "os": ""} for _ in range(n)]
    for round_ in range(8):
        replace = round_ % 3 == 2
        some = sorted(dice.sample(range(n), n if round_ == 0 else 400))
        devices = []
        for d in some:
            level, os_version = dice.choice(["", "1", "2", "3", "10"]), dice.choice(["", "16.1", "17", "17.4", "beta"])
            tags = dice.sample(["a1", "a2", "a3", "b"], dice.randrange(3))
            given = dice.random() < 0.7
            devices.append(pb.Device(id=f"d{d:04d}", platform=1, tags=tags, attributes={"level": level} if given else {},
                                     information=pb.DeviceInformation(os_version=os_version)))
            own = has[d]
            own["tags"] = set(tags) if replace else own["tags"] | set(tags)
            own["level"] = level if given else "" if replace else own["level"]
            own["os"] = os_version or own["os"]
        client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=devices, replace_labels=replace)]))
        for text, meant in (("tag exists", lambda p: p["tags"]),
                            ("tag startswith a", lambda p: any(t.startswith("a") for t in p["tags"])),
                            ("attr.level exists", lambda p: p["level"]),
                            ("attr.level >= 1", lambda p: p["level"]),
                            ("attr.level < 10", lambda p: p["level"] and int(p["level"]) < 10),
                            ("attr.level > 3", lambda p: p["level"] == "10"),
                            ("os_version >= 16", lambda p: p["os"] and p["os"] != "beta"),
                            ("os_version exists", lambda p: p["os"])):
            assert matched(api, client, text) == {d for d in range(n) if meant(has[d])}, (round_, text)
