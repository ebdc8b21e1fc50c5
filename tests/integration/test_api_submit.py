"""SubmitBatch: targets, idempotence, validation, and that the answer is durable and quick."""
import concurrent.futures
import random
import time

import grpc
import pytest
from harness.answers import refused
from harness.in_time import in_time
from harness.until import until

IDS = [f"s-{i:05d}" for i in range(3000)]


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


@pytest.fixture(scope="module")
def client(api):
    """A tenant with 3,000 devices, 500 of each platform, and two groups."""
    c = api.client(api.make_tenant())
    api.import_devices(c, IDS)
    c.devices.CreateGroup(api.pb.CreateGroupRequest(name="low", device_ids=IDS[:100]))
    c.devices.CreateGroup(api.pb.CreateGroupRequest(name="mid", device_ids=IDS[50:1100]))
    return c


def targets(api, batch_id):
    """The seqs a batch addresses, from the truth."""
    seqs = []
    for block, first, bits in api.sql("SELECT block, first, targets FROM batch_block WHERE batch_id = %s ORDER BY block",
                                      batch_id):
        assert first % 8 == 0 and bytes(bits)[-1] and bytes(bits)[0]
        seqs += [block * 1024 + first + 8 * i + k for i, byte in enumerate(bytes(bits)) for k in range(8) if byte >> k & 1]
    return seqs


def test_all(api, client):
    b = api.submit(client).batch
    assert b.device_count == 3000 and b.progress.queued == 3000 and b.state == api.pb.BATCH_STATE_OPEN
    assert targets(api, b.id) == list(range(3000))


def test_platform(api, client):
    b = api.submit(client, target=api.pb.Target(platform=api.pb.PLATFORM_TVOS)).batch
    assert targets(api, b.id) == list(range(3, 3000, 6))


def test_groups_overlap(api, client):
    b = api.submit(client, target=api.pb.Target(groups=api.pb.GroupNames(names=["mid", "low", "mid"]))).batch
    assert b.device_count == 1100 and targets(api, b.id) == list(range(1100))


def test_ids_repeated_and_unknown(api, client):
    ids = [IDS[2047], "nobody", IDS[0], IDS[2047], "nobody", "nothing"]
    a = api.submit(client, target=api.pb.Target(devices=api.pb.DeviceIds(ids=ids)))
    assert a.batch.device_count == 2 and targets(api, a.batch.id) == [0, 2047]
    assert a.unknown_count == 2 and list(a.unknown_device_ids) == ["nobody", "nothing"]


def test_unknown_ids_are_named_up_to_a_hundred(api, client):
    ids = [IDS[7]] + [f"no-{i}" for i in range(250)]
    a = api.submit(client, target=api.pb.Target(devices=api.pb.DeviceIds(ids=ids)), request_id="hundred")
    assert a.unknown_count == 250 and list(a.unknown_device_ids) == ids[1:101]
    again = api.submit(client, target=api.pb.Target(devices=api.pb.DeviceIds(ids=ids)), request_id="hundred")
    assert again.replayed
    again.replayed = False
    assert again == a


def test_require_all_known(api, client):
    before = api.sql("SELECT count(*) FROM batch")
    fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_DEVICES", lambda: api.submit(
        client, target=api.pb.Target(devices=api.pb.DeviceIds(ids=[IDS[0], "nobody"])), require_all_known=True))
    assert "nobody" in fields["target.devices.ids"]
    assert api.sql("SELECT count(*) FROM batch") == before


def test_empty_targets(api, client):
    pb = api.pb
    client.devices.CreateGroup(pb.CreateGroupRequest(name="nobody"))
    empty = api.client(api.make_tenant())
    for c, target in ((empty, pb.Target(all=True)), (empty, pb.Target(platform=1)),
                      (client, pb.Target(groups=pb.GroupNames(names=["nobody"]))),
                      (client, pb.Target(devices=pb.DeviceIds(ids=["a", "b"])))):
        for validate_only in (False, True):
            refused(api, grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_TARGET",
                    lambda c=c, t=target, v=validate_only: api.submit(c, target=t, validate_only=v))


def test_validate_only(api, client):
    pb = api.pb
    before = api.sql("SELECT count(*) FROM batch")
    a = api.submit(client, validate_only=True, request_id="")
    assert a.batch.id == 0 and a.batch.device_count == 3000 and not a.batch.HasField("created_at")
    assert {p.platform: p.devices for p in a.platforms} == {p: 500 for p in range(1, 7)}
    a = api.submit(client, validate_only=True, target=pb.Target(groups=pb.GroupNames(names=["low"])))
    assert sum(p.devices for p in a.platforms) == 100
    a = api.submit(client, validate_only=True, target=pb.Target(platform=2))
    assert [(p.platform, p.devices) for p in a.platforms] == [(2, 500)]
    a = api.submit(client, validate_only=True, target=pb.Target(devices=pb.DeviceIds(ids=[IDS[0], IDS[6], IDS[1], "x"])))
    assert {p.platform: p.devices for p in a.platforms} == {1: 2, 2: 1} and a.unknown_count == 1
    assert api.sql("SELECT count(*) FROM batch") == before


def test_the_same_request_twice(api, client):
    first = api.submit(client, request_id="twice", description="d")
    again = api.submit(client, request_id="twice", description="d")
    assert again.replayed and not first.replayed
    again.replayed = False
    assert again == first
    assert api.sql("SELECT count(*) FROM batch WHERE request_id = 'twice'") == [(1,)]


def test_the_same_request_id_for_something_else(api, client):
    pb = api.pb
    api.submit(client, request_id="else")
    soon = int(time.time()) + 3600
    for other in ({"description": "other"}, {"priority": pb.PRIORITY_BULK}, {"require_all_known": True},
                  {"command": pb.Command(unlock=pb.UnlockCommand())}, {"target": pb.Target(platform=1)},
                  {"expires_at": {"seconds": soon}}):
        refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED",
                lambda o=other: api.submit(client, request_id="else", **o))


def test_the_same_request_id_for_something_else_at_once(api):
    """Of two that may be accepted together one makes the batch, as it alone wants it, and the other is refused."""
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a", "b"])
    wishes = [{}, {"retry": pb.Retry(failed=True, attempts=7)}, {"dynamic": True}]

    def submit(i):
        try:
            return api.submit(c, request_id=f"r-{i // 3}", **wishes[i % 3]).batch.id
        except grpc.RpcError as e:
            assert (e.code(), api.stubs.details(e)[0]) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            return None
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        made = {batch: i % 3 for i, batch in enumerate(pool.map(submit, range(90))) if batch}
    assert len(made) == 30
    rows = api.sql("SELECT b.id, coalesce(c.retry_attempts, 0), c.target IS NOT NULL FROM batch b LEFT JOIN batch_control c"
                   " ON c.batch_id = b.id WHERE b.id = ANY (%s)", list(made))
    assert {r[0]: r[1:] for r in rows} == {batch: [(0, False), (7, False), (0, True)][i] for batch, i in made.items()}
    def audited():
        entries = c.admin.ListAudit(pb.ListAuditRequest(action="submit_batch", page_size=1000)).entries
        return sorted(int(e.detail) for e in entries)
    until(lambda: set(audited()) == set(made))
    assert audited() == sorted(made)  # each once


def test_the_first_answer_stands_when_its_time_is_over(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a"])
    duration = api.stubs.module("google.protobuf.duration_pb2").Duration

    def submitted(span):
        soon, later = (int(time.time() + s) + 1 for s in (span.seconds, span.seconds + 58))
        requests = [dict(request_id=f"short-{soon}", expires_at={"seconds": soon}),
                    dict(request_id=f"tight-{soon}", expires_at={"seconds": later},
                         steering=pb.Steering(timeouts=pb.Timeouts(delivery=duration(seconds=58))))]
        return requests, [api.submit(c, **r).batch for r in requests]
    requests, first = in_time(submitted, 2)
    time.sleep(max(requests[1]["expires_at"]["seconds"] - 58 - time.time(), 0))
    api.watch(c, first[0].id)
    again = [api.submit(c, **r) for r in requests]
    assert all(a.replayed for a in again) and [a.batch for a in again] == first
    # What was never accepted is told what is wrong, as is what is not the same.
    for r, code, reason in zip(requests, (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION),
                               ("INVALID_FIELD", "TIMEOUT_AFTER_EXPIRY")):
        refused(api, code, reason, lambda q=r: api.submit(c, **{**q, "request_id": "new"}))
        refused(api, code, reason, lambda q=r: api.submit(c, **{**q, "validate_only": True}))
        refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", lambda q=r: api.submit(c, **q, description="other"))
        refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda q=r: api.submit(c, **q, description="x" * 1025))
    c.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first[1].id))


def test_the_first_answer_stands_whatever_was_done_to_the_batch(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a", "b"])
    waves = [pb.Wave(devices=1), pb.Wave(by_hand=True)]
    requests = [dict(request_id="plain"), dict(request_id="waves", steering=pb.Steering(waves=waves))]
    first = [api.submit(c, **r) for r in requests]
    assert [a.batch.control.waves_released for a in first] == [0, 1]
    c.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=first[1].batch.id))
    for a in first:
        c.control.PauseBatch(pb.PauseBatchRequest(batch_id=a.batch.id, reason="a closer look"))
    for r, a in zip(requests, first):
        again = api.submit(c, **r)
        assert again.replayed
        again.replayed = False
        assert again == a
        c.commands.CancelBatch(pb.CancelBatchRequest(batch_id=a.batch.id))


def test_the_first_answer_stands_when_the_fleet_has_changed(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["only"])
    ids = pb.Target(devices=pb.DeviceIds(ids=["only"]))
    first = [api.submit(c, request_id="all"), api.submit(c, request_id="strict", target=ids, require_all_known=True)]
    c.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="only"))
    again = [api.submit(c, request_id="all"), api.submit(c, request_id="strict", target=ids, require_all_known=True)]
    assert all(a.replayed for a in again) and [a.batch for a in again] == [a.batch for a in first]
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED",
            lambda: api.submit(c, request_id="all", description="other"))
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_TARGET", lambda: api.submit(c, request_id="new"))


def test_the_same_request_many_times_at_once(api, client):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: api.submit(client, request_id=f"at-once-{i % 4}"), range(64)))
    assert len({a.batch.id for a in answers}) == 4
    assert sum(not a.replayed for a in answers) == 4


def test_default_priority_and_expiry(api, client):
    pb = api.pb
    for command, priority in ((pb.Command(lock=pb.LockCommand()), pb.PRIORITY_URGENT),
                              (pb.Command(unlock=pb.UnlockCommand()), pb.PRIORITY_URGENT),
                              (pb.Command(wipe=pb.WipeCommand()), pb.PRIORITY_URGENT),
                              (pb.Command(lost_mode=pb.LostModeCommand(action=1, message="m")), pb.PRIORITY_URGENT),
                              (pb.Command(lost_mode=pb.LostModeCommand(action=2)), pb.PRIORITY_URGENT),
                              (pb.Command(restart=pb.RestartCommand()), pb.PRIORITY_NORMAL),
                              (pb.Command(custom=pb.CustomCommand(type="a.b")), pb.PRIORITY_NORMAL)):
        b = api.submit(client, command=command).batch
        assert b.priority == priority and b.command == command
        assert b.expires_at.ToMilliseconds() - b.created_at.ToMilliseconds() == 7 * 86400 * 1000
    b = api.submit(client, priority=pb.PRIORITY_BULK).batch
    assert b.priority == pb.PRIORITY_BULK


def test_every_kind_of_command_comes_back_as_it_was(api, client):
    pb = api.pb
    for command in (pb.Command(configure=pb.ConfigureCommand(profile_id="p", profile=b"\0\1")),
                    pb.Command(restrict_functions=pb.RestrictCommand(restrictions=[pb.Restriction(function=1)])),
                    pb.Command(query_information=pb.QueryInformationCommand(items=["os_version"])),
                    pb.Command(install_application=pb.InstallApplicationCommand(application_id="a", sha256=b"x" * 32)),
                    pb.Command(remove_application=pb.RemoveApplicationCommand(application_id="a")),
                    pb.Command(back_up=pb.BackUpCommand(destination="s3://x")),
                    pb.Command(restore=pb.RestoreCommand(backup_reference="r")),
                    pb.Command(restart=pb.RestartCommand(grace={"seconds": 60})),
                    pb.Command(lost_mode=pb.LostModeCommand(action=1, message="m", phone_number="1", footnote="f")),
                    pb.Command(custom=pb.CustomCommand(type="com.example/x", payload=bytes(range(256)) * 200))):
        b = api.submit(client, command=command, target=pb.Target(devices=pb.DeviceIds(ids=[IDS[0]]))).batch
        assert b.command == command
        assert client.commands.GetBatch(pb.GetBatchRequest(batch_id=b.id)).batch.command == command


def test_all_violations_at_once(api, client):
    pb = api.pb
    fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: client.commands.SubmitBatch(
        pb.SubmitBatchRequest(command=pb.Command(lock=pb.LockCommand(message="x" * 513)), priority=9,
                              target=pb.Target(platform=77), description="d" * 1025, expires_at={"seconds": 1})))
    assert set(fields) == {"request_id", "command.lock.message", "priority", "target.platform", "description", "expires_at"}


@pytest.mark.parametrize("field, make", [
    ("command", lambda pb: {"command": pb.Command(custom=pb.CustomCommand(type="x", payload=bytes(65536)))}),
    ("command", lambda pb: {"command": pb.Command()}),
    ("target", lambda pb: {"target": pb.Target()}),
    ("target.all", lambda pb: {"target": pb.Target(all=False)}),
    ("target.devices.ids", lambda pb: {"target": pb.Target(devices=pb.DeviceIds())}),
    ("target.devices.ids[1]", lambda pb: {"target": pb.Target(devices=pb.DeviceIds(ids=["a", "b c"]))}),
    ("target.groups.names", lambda pb: {"target": pb.Target(groups=pb.GroupNames(names=["g"] * 65))}),
    ("request_id", lambda pb: {"request_id": "x" * 129}),
    ("expires_at", lambda pb: {"expires_at": {"seconds": int(time.time()) - 1}}),
    ("expires_at", lambda pb: {"expires_at": {"seconds": int(time.time()) + 41 * 86400}}),
    ("command.restart.grace", lambda pb: {"command": pb.Command(restart=pb.RestartCommand(grace={"seconds": 3601}))}),
    ("command.lost_mode.action", lambda pb: {"command": pb.Command(lost_mode=pb.LostModeCommand(message="m"))}),
    ("command.lost_mode.message", lambda pb: {"command": pb.Command(lost_mode=pb.LostModeCommand(action=1, footnote="f"))}),
    ("command.lost_mode.footnote", lambda pb: {"command": pb.Command(lost_mode=pb.LostModeCommand(action=2, footnote="f"))}),
])
def test_bad_fields(api, client, field, make):
    fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: api.submit(client, **make(api.pb)))
    assert set(fields) == {field}


def test_texts_do_not_end_at_a_zero_byte(api, client):
    """What stands behind it is passed over by nobody: an id would be that of another device, a filter half of one."""
    pb = api.pb

    def listed(*ids):
        return pb.Target(devices=pb.DeviceIds(ids=ids))
    for field, fields in {
            "target.devices.ids[1]": {"target": listed(IDS[0], IDS[1] + "\0x")},
            "target.filter": {"target": pb.Target(filter="platform = ios\0 and device_id = none")},
            "target.exclude.devices.ids[0]": {"target": pb.Target(all=True, exclude=listed(IDS[1] + "\0x"))},
            "command.lock.message": {"command": pb.Command(lock=pb.LockCommand(message="a\0b"))},
            "steering.waves[1].filter": {"steering": pb.Steering(waves=[pb.Wave(percent=10), pb.Wave(filter="tag = a\0")])},
            "request_id": {"request_id": "\0"}}.items():
        fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda f=fields: api.submit(client, **f))
        assert fields == {field: "has a zero byte"}
    refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
            lambda: client.devices.CreateGroup(pb.CreateGroupRequest(name="g\0", filter="tag = a")))
    with pytest.raises(grpc.RpcError) as e:
        client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[pb.Device(id="z")]),
                                           pb.ImportDevicesRequest(devices=[pb.Device(id="z\0y")])]))
    assert api.stubs.details(e.value) == ("INVALID_FIELD", {"devices[0].id": "has a zero byte"})
    # Bytes may have them.
    api.submit(client, command=pb.Command(custom=pb.CustomCommand(type="t", payload=b"a\0b")), target=listed(IDS[0]))


def test_largest_command(api, client):
    pb = api.pb
    command = pb.Command(custom=pb.CustomCommand(type="x", payload=bytes(65536 - 13)))
    spare = 65536 - command.ByteSize()
    command.custom.payload = bytes(65536 - 13 + spare)
    assert command.ByteSize() == 65536
    assert api.submit(client, command=command).batch.command == command


def test_many_callers_at_once(api, client):
    """Every answered batch is there, whole."""
    pb = api.pb
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(api.submit, client, target=pb.Target(devices=pb.DeviceIds(ids=[IDS[i]])))
                   for i in range(400)]
        made = {f.result().batch.id: i for i, f in enumerate(futures)}
    assert len(made) == 400
    for batch_id, i in made.items():
        assert targets(api, batch_id) == [i]


def test_one_device_by_its_id(api, client):
    """Found and accepted in one step: the same answers as for any other target."""
    pb = api.pb

    def one(device, **fields):
        return api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[device])), **fields)
    for i in (0, 7, 8, 1023, 1024, 2999):
        answer = one(IDS[i])
        assert answer.batch.device_count == 1 and answer.batch.progress.queued == 1 and not answer.unknown_count
        assert targets(api, answer.batch.id) == [i]
    first = one(IDS[5], request_id="one", description="d")
    again = one(IDS[5], request_id="one", description="d")
    assert again.replayed and again.batch == first.batch
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", lambda: one(IDS[6], request_id="one", description="d"))
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", lambda: one("nobody", request_id="one"))
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_TARGET", lambda: one("nobody"))
    violations = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_DEVICES",
                         lambda: one("nobody", require_all_known=True))
    assert "nobody is not registered" in str(violations)


def test_what_is_wrong_with_one_of_a_group_concerns_only_it(api, client):
    """Submits of all kinds under way together: known devices, unknown ones, the same request twice, its id for something
    else, lists."""
    pb = api.pb

    def start(ids, request_id, **fields):
        request = pb.SubmitBatchRequest(request_id=request_id, command=pb.Command(lock=pb.LockCommand(message="m")),
                                        target=pb.Target(devices=pb.DeviceIds(ids=ids)), **fields)
        return pool.submit(client.commands.SubmitBatch, request)
    before = api.sql("SELECT count(*) FROM batch")[0][0]
    calls = {"known": [], "unknown": [], "twice": [], "list": [], "else": []}
    pool = concurrent.futures.ThreadPoolExecutor(64)
    for i in range(100):
        calls["known"].append(start([IDS[i]], f"group-{i}"))
        calls["unknown"].append(start([f"nobody-{i}"], f"group-unknown-{i}"))
        calls["twice"].append(start([IDS[i]], f"group-{i}"))
        calls["list"].append(start([IDS[i], IDS[2000 + i], "nobody"], f"group-list-{i}"))
        calls["else"].append(start([IDS[i]], f"group-else-{i % 10}", description=str(i)))
    for i in range(100):
        known, twice = calls["known"][i].result(), calls["twice"][i].result()
        assert known.batch.id == twice.batch.id and known.replayed + twice.replayed == 1
        assert targets(api, known.batch.id) == [i]
        assert targets(api, calls["list"][i].result().batch.id) == [i, 2000 + i]
        assert calls["list"][i].result().unknown_device_ids == ["nobody"]
        assert calls["unknown"][i].exception().code() == grpc.StatusCode.FAILED_PRECONDITION
    done = [c for c in calls["else"] if not c.exception()]
    assert len(done) == 10 and len({c.result().batch.request_id for c in done}) == 10
    assert all(c.exception().code() == grpc.StatusCode.ALREADY_EXISTS for c in calls["else"] if c not in done)
    assert api.sql("SELECT count(*) FROM batch")[0][0] == before + 100 + 100 + 10


def test_a_long_list_looked_up_in_parts(api):
    """Ids in no order, some twice, some unknown: every known one counts once, and the first 100 unknown ones are named as they
    were listed."""
    pb, random_order, client = api.pb, random.Random(3), api.client(api.make_tenant())
    known = [f"long-{i:06d}" for i in range(62000)]
    api.import_devices(client, known)
    unknown = [f"long-{i:06d}x" for i in range(0, 62000, 400)]
    ids = known[:61000] + known[:500] + unknown
    random_order.shuffle(ids)
    target = pb.Target(devices=pb.DeviceIds(ids=ids))
    first = [i for i in ids if i.endswith("x")]
    for extra in ({}, {"validate_only": True}):
        a = api.submit(client, target=target, **extra)
        assert a.batch.device_count == 61000 and a.unknown_count == len(unknown)
        assert list(a.unknown_device_ids) == first[:100]
        if not extra:
            assert targets(api, a.batch.id) == list(range(61000))
    assert sum(p.devices for p in a.platforms) == 61000 and len(a.platforms) == 6
    with pytest.raises(grpc.RpcError) as e:
        api.submit(client, target=target, require_all_known=True)
    assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT and api.stubs.details(e.value)[0] == "UNKNOWN_DEVICES"
