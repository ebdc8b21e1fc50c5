"""A value per device in one command: refused where it does not fit, delivered to its device alone, told to nobody else,
deleted at the end, and there again after a loss."""
import base64
import json
import os
import secrets
import time

import grpc
import paho.mqtt.client as mqtt
import pytest
from harness.answers import progress, refusal, refused
from harness.device import good
from harness.patience import patient
from harness.until import until
from paho.mqtt.properties import PacketTypes, Properties

PRE, BAD = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
SECRET = "hush-"  # every value begins so


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


def lock(pb, **fields):
    return pb.Command(lock=pb.LockCommand(**fields))


def one(pb, values, name="code", **fields):
    """Values of one variable, from {device: value}."""
    return pb.Values(device_ids=list(values), variables=[pb.Variable(name=name, values=[
        v if isinstance(v, bytes) else v.encode() for v in values.values()])], **fields)


def codes(ids):
    return {d: f"{SECRET}{d}-{secrets.token_hex(4)}" for d in ids}


def submit(api, client, values, **fields):
    fields.setdefault("command", lock(api.pb, passcode="{{code}}"))
    fields.setdefault("target", None)
    return api.submit(client, values=values, **fields)


# --- delivered --------------------------------------------------------------------------------------------------------

def test_each_device_gets_its_own(api, client):
    """Over several blocks; who was there gets it by its inbox, who comes later by being attached; the same bytes again."""
    pb = api.pb
    ids = [f"d-{i}" for i in range(1500)]
    api.import_devices(client, ids)
    chosen = [ids[i] for i in (0, 7, 1023, 1024, 1499)]
    tokens = api.tokens(client, chosen)
    there = {d: api.device(d, tokens[d], answer=good(pb)).connect(api.workers[0].address) for d in chosen[:3]}
    values = codes(ids)
    begun = submit(api, client, one(pb, values), command=lock(pb, passcode="{{code}}", message="for {{code}}!"))
    assert begun.batch.device_count == 1500 and begun.batch.values == pb.BatchValues(names=["code"], device_count=1500)
    for d in chosen[3:]:
        with api.device(d, tokens[d]) as silent:
            first = silent.connect(api.workers[0].address).next()
        there[d] = api.device(d, tokens[d], answer=good(pb)).connect(api.workers[0].address)
        again = there[d].next()
        assert again.command == first.command and again.command_id == first.command_id
        there[d].deliveries.put(again)
    for d, device in there.items():
        delivery = device.next()
        assert delivery.command == lock(pb, passcode=values[d], message=f"for {values[d]}!")
        device.close()
    api.watch(client, begun.batch.id, until=lambda b: b.progress.succeeded == 5)


def test_json_several_variables_and_defaults(api, client):
    """A device that asks for JSON; bytes are base64 there, texts are escaped; who is not listed gets the defaults."""
    pb = api.pb
    ids = ["j", "listed", "other"]
    api.import_devices(client, ids)
    tokens = api.tokens(client, ids)
    values = pb.Values(device_ids=["j", "listed"], others_get_defaults=True, variables=[
        pb.Variable(name="wifi", values=[b"\x00\xff{{id}}", b"x" * 4096], default_value=b"open"),
        pb.Variable(name="id", values=['a"b\\\u00e4'.encode(), b"second"], default_value=b"nobody")])
    command = pb.Command(configure=pb.ConfigureCommand(profile_id="wifi-{{id}}", profile=b"<{{wifi}}>{{wifi}}{"))
    properties = Properties(PacketTypes.CONNECT)
    properties.UserProperty = ("content-type", "application/json")
    device = api.device("j", tokens["j"], protocol=mqtt.MQTTv5)
    device.client.on_message = lambda _c, _u, message: device.deliveries.put(message)
    host, port = api.workers[0].address.rsplit(":", 1)
    device.client.connect(host, int(port), properties=properties)
    device.client.loop_start()
    assert device.connected.wait(patient(20))
    device.client.subscribe("devices/j/commands", qos=1)
    assert device.subscribed.wait(patient(20))
    others = {d: api.device(d, tokens[d]).connect(api.workers[0].address) for d in ids[1:]}
    batch = submit(api, client, values, command=command, target=pb.Target(all=True)).batch
    assert batch.values.device_count == 2 and batch.values.others_get_defaults and batch.command == command
    told = json.loads(device.next().payload)["command"]["configure"]
    wifi = b"\x00\xff{{id}}"  # what stands in a value is not filled again
    got = pb.ConfigureCommand(profile_id=told["profileId"], profile=base64.b64decode(told["profile"]))
    assert got == pb.ConfigureCommand(profile_id='wifi-a"b\\\u00e4', profile=b"<" + wifi + b">" + wifi + b"{")
    assert others["listed"].next().command.configure == pb.ConfigureCommand(
        profile_id="wifi-second", profile=b"<" + b"x" * 4096 + b">" + b"x" * 4096 + b"{")
    assert others["other"].next().command.configure == pb.ConfigureCommand(profile_id="wifi-nobody", profile=b"<open>open{")
    for d in [device, *others.values()]:
        d.close()
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id))


def test_what_a_device_cannot_take_is_rejected_for_it_alone(api, client):
    pb = api.pb
    api.import_devices(client, ["small", "large"])
    tokens = api.tokens(client, ["small", "large"])
    properties = Properties(PacketTypes.CONNECT)
    properties.MaximumPacketSize = 400
    devices = []
    for d in ("small", "large"):
        device = api.device(d, tokens[d], protocol=mqtt.MQTTv5, answer=good(pb))
        host, port = api.workers[0].address.rsplit(":", 1)
        device.client.connect(host, int(port), properties=properties)
        device.client.loop_start()
        assert device.connected.wait(patient(20))
        device.client.subscribe(f"devices/{d}/commands", qos=1)
        assert device.subscribed.wait(patient(20))
        devices.append(device)
    batch = submit(api, client, one(pb, {"small": "s" * 10, "large": "l" * 400}),
                   command=lock(pb, message="{{code}}")).batch.id
    assert progress(api.watch(client, batch)) == {"succeeded": 1, "rejected": 1}
    for device in devices:
        device.close()


# --- refused ----------------------------------------------------------------------------------------------------------

def test_what_does_not_fit_is_refused(api, client):
    pb = api.pb
    ids = [f"r-{i:03d}" for i in range(40)]
    api.import_devices(client, ids)
    some = pb.Target(devices=pb.DeviceIds(ids=ids[:20]))
    everybody = pb.Target(all=True)

    def submit_with(values, **fields):
        fields.setdefault("target", everybody)
        return lambda: submit(api, client, values, **fields)

    # Who has none, and who should not have one, is named.
    error = refusal(api, PRE, "VALUES_MISSING", submit_with(one(pb, codes(ids[3:38]))))
    assert api.stubs.details(error)[1] == {"values.device_ids": "r-039 has no value"}  # the last of them
    assert "5 of the devices addressed" in error.details()
    error = refusal(api, PRE, "VALUES_OUTSIDE_TARGET", submit_with(one(pb, codes(ids[:21] + ["nobody"])), target=some))
    assert "2 devices have values" in error.details()
    for call in (submit_with(one(pb, codes(ids[3:])), validate_only=True, request_id=""),
                 submit_with(one(pb, codes(ids[3:])))):
        refused(api, PRE, "VALUES_MISSING", call)
    # What the request says.
    double = one(pb, codes(ids[:3]))
    double.device_ids[2] = double.device_ids[0]
    cases = [
        (double, dict(target=None), "values.device_ids[2]"),
        (one(pb, codes(ids), name="cod"), {}, "command.lock.passcode"),  # {{code}} is no variable of it
        (one(pb, codes(ids), name="a-b"), {}, "values.variables[0].name"),
        (one(pb, {}), {}, "values.device_ids"),
        (pb.Values(device_ids=ids), {}, "values.variables"),
        (pb.Values(device_ids=ids, variables=[pb.Variable(name="code", values=[b"1"])]), {}, "values.variables[0].values"),
        (pb.Values(device_ids=ids[:1], variables=[pb.Variable(name=n, values=[b"1"]) for n in ("code", "code")]), {},
         "values.variables[1].name"),
        (pb.Values(device_ids=ids[:1], variables=[pb.Variable(name=f"v{i}", values=[b"1"]) for i in range(9)]), {},
         "values.variables"),
        (one(pb, {"r-000": "12"}, name="unused"), dict(command=lock(pb, message="hi")), "values.variables[0].name"),
        (one(pb, {"r-000": b"\xff"}), {}, "values.variables[0].values[0]"),
        (one(pb, {"r-000": b"a\x00b"}), {}, "values.variables[0].values[0]"),
        (one(pb, {"r-000": "x" * 4097}), {}, "values.variables[0].values[0]"),
        (one(pb, {"r-000": "1", "r-001": "x" * 65}), {}, "command.lock.passcode"),  # of one of them too long there
        (one(pb, {"r-000": "id", "r-001": ""}), dict(command=pb.Command(
            remove_application=pb.RemoveApplicationCommand(application_id="{{code}}"))),
         "command.remove_application.application_id"),
        (one(pb, {"r-000": "1", "r-001": ""}), dict(command=pb.Command(
            lost_mode=pb.LostModeCommand(action=pb.LOST_MODE_ACTION_ENABLE, message="{{code}}", footnote="ours"))),
         "command.lost_mode.message"),
        (one(pb, {"r-000": "t"}), dict(command=pb.Command(custom=pb.CustomCommand(type="{{code}}"))), "command.custom.type"),
        (one(pb, {"r-000": "1"}), dict(command=pb.Command()), "command"),
        (pb.Values(device_ids=ids[:1], variables=[pb.Variable(name="code", values=[b"1"], default_value=b"2")]), {},
         "values.variables[0].default_value"),
        (pb.Values(others_get_defaults=True, variables=[pb.Variable(name="code", default_value=b"x" * 65)]), {},
         "command.lock.passcode"),
        (pb.Values(others_get_defaults=True, variables=[pb.Variable(name="code")]), dict(target=None), "target"),
        (pb.Values(device_ids=ids[:1], variables=[pb.Variable(name=f"v{i}", values=[b"1" * 4096]) for i in range(3)]),
         dict(command=pb.Command(custom=pb.CustomCommand(type="t", payload=b"{{v0}}{{v1}}{{v2}}"))),
         "values.variables[0].values[0]"),
        (one(pb, {"r-000": "1" * 4096}), dict(command=pb.Command(custom=pb.CustomCommand(type="t", payload=b"{{code}}" * 17))),
         "command"),
    ]
    for values, fields, field in cases:
        violations = refused(api, BAD, "INVALID_FIELD", submit_with(values, **fields))
        assert field in violations, (field, violations)
        assert not any("xxx" in v or SECRET in v for v in violations.values())
    assert not client.commands.ListBatches(pb.ListBatchesRequest()).batches  # nothing half done
    assert api.sql("SELECT count(*) FROM batch_value_block v JOIN batch b ON b.id = v.batch_id WHERE b.tenant_id ="
                   " (SELECT tenant_id FROM device WHERE id = 'r-000')") == [(0,)]


def test_an_unknown_device_of_those_listed_is_named_where_it_stands(api, client):
    pb = api.pb
    api.import_devices(client, ["listed"])
    values = one(pb, codes(["listed", "mistyped"]))
    fields = refused(api, BAD, "UNKNOWN_DEVICES", lambda: submit(api, client, values, require_all_known=True))
    assert fields == {"values.device_ids": "mistyped is not registered"}


def test_the_same_request_again(api, client):
    pb = api.pb
    ids = ["a", "b"]
    api.import_devices(client, ids)
    values = codes(ids)
    first = submit(api, client, one(pb, values), request_id="r")
    again = submit(api, client, one(pb, values), request_id="r")
    assert again.replayed and again.batch.id == first.batch.id and again.batch.values == first.batch.values
    assert again.target_digest == first.target_digest
    for other in (one(pb, {**values, "b": "another"}), one(pb, {"a": values["a"]}), None):
        refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED",
                lambda: submit(api, client, other, request_id="r", target=None if other else pb.Target(all=True)))
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="b"))  # the first answer stands
    assert submit(api, client, one(pb, values), request_id="r").replayed
    unknown = submit(api, client, one(pb, codes(["a", "b"])))
    assert unknown.unknown_count == 1 and unknown.batch.values.device_count == 1


def test_what_is_approved_covers_the_values(api):
    """The hash is another for other values, and cannot be tried out: it is another for the same ones too."""
    pb = api.pb
    tenant = api.make_tenant()
    admin, approver = api.client(tenant), api.client(api.make_key(tenant.number, 4))
    api.import_devices(admin, ["w"])
    token = api.tokens(admin, ["w"])["w"]
    policy = pb.GuardPolicy(enabled=True, commands=["remove_application"], devices_per_hour=0, percent_per_hour=0)
    policy.approval_lifetime.FromSeconds(3600)
    admin.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=tenant.name, policy=policy))
    command = pb.Command(remove_application=pb.RemoveApplicationCommand(application_id="app.{{code}}"))
    batches = [submit(api, admin, one(pb, {"w": "1234"}), command=command).batch for _ in range(2)]
    hashes = [b.approval.command_hash for b in batches]
    assert all(len(h) == 64 for h in hashes) and len(set(hashes)) == 2
    refused(api, PRE, "COMMAND_CHANGED", lambda: approver.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=batches[0].id, target_digest=batches[0].approval.target_digest, command_hash=hashes[1])))
    approver.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=batches[0].id, target_digest=batches[0].approval.target_digest, command_hash=hashes[0]))
    with api.device("w", token, answer=good(pb)) as w:
        w.connect(api.workers[0].address)
        until(lambda: admin.commands.GetBatch(pb.GetBatchRequest(batch_id=batches[0].id)).batch.approval.state == 3, 90)
        assert w.next().command.remove_application.application_id == "app.1234"
    admin.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batches[1].id))
    api.watch(admin, batches[1].id)
    assert api.sql("SELECT count(*) FROM batch_value_block WHERE batch_id = %s", batches[1].id) == [(0,)]


# --- secrets ----------------------------------------------------------------------------------------------------------

def everywhere(stack, batch):
    """All that is stored or logged, as one text of bytes."""
    out = [stack.redis.client().get(k) or b"" for k in stack.redis.client().scan_iter("*values*")]
    for table in ("batch_value_block", "batch_values", "batch", "audit", "command_result"):
        out += [repr(row).encode() for row in stack.sql(f"SELECT t::text FROM {table} t")]
    return b"\n".join(out)


def test_values_are_secrets_and_go_when_the_batch_is_closed(make_stack, cli):
    stack = make_stack()
    stack.start()
    pb = stack.pb
    tenant = stack.make_tenant()
    client = stack.client(tenant)
    tokens = stack.make_devices(client, 2, prefix="s")
    ids = list(tokens)
    values = codes(ids)
    batch = submit(stack, client, one(pb, values)).batch.id
    until(lambda: stack.redis.client().exists(f"{{t{tenant.number}.b0}}:values:{batch}"))
    hidden = SECRET.encode().hex()  # as bytea is shown
    assert hidden in stack.sql("SELECT vals::text FROM batch_value_block WHERE batch_id = %s", batch)[0][0]
    devices = [stack.device(d, tokens[d], answer=good(pb)).connect(stack.workers[0].address) for d in ids]
    assert progress(stack.watch(client, batch)) == {"succeeded": 2}
    told = [client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)), client.commands.ListBatches(pb.ListBatchesRequest()),
            *client.commands.ExportCommands(pb.ExportCommandsRequest(batch_id=batch))]
    assert told[0].batch.values.names == ["code"] and told[0].batch.values.device_count == 2
    assert not any(SECRET in str(m) for m in told)
    assert not stack.redis.client().keys("*values*")
    assert stack.sql("SELECT (SELECT count(*) FROM batch_value_block), defaults, salt FROM batch_values")[0][0] == 0
    assert hidden.encode() not in everywhere(stack, batch) and SECRET.encode() not in everywhere(stack, batch)
    for device in devices:
        device.close()
    for daemon in (*stack.dispatchers, *stack.workers):
        with open(daemon.log_path, encoding="utf-8") as log:
            text = log.read()
        assert SECRET not in text and hidden not in text
    out = cli("verify", env=stack.cli_env(tenant), check=0).stdout
    assert SECRET not in out


# --- losses -----------------------------------------------------------------------------------------------------------

def test_redis_is_emptied_and_values_come_back(make_stack, cli):
    """Also of a batch that another dispatcher than the leader accepts, of one that is not routed yet, and with verify."""
    stack = make_stack()
    stack.start(dispatchers=2, workers=2)
    pb = stack.pb
    tenant = stack.make_tenant()
    client = stack.client(tenant, stack.dispatchers[1])
    tokens = stack.make_devices(client, 3, prefix="l")
    ids = list(tokens)
    values = codes(ids)
    batch = submit(stack, client, one(pb, values)).batch.id
    now = time.time()
    open_now = {name: time.strftime("%H:%M", time.gmtime(now + h * 3600)) for name, h in (("from", -6), ("until", 6))}
    later = submit(stack, client, one(pb, values), steering=pb.Steering(window=pb.Window(**open_now))).batch.id
    key = f"{{t{tenant.number}.b0}}:values:{batch}"
    redis = stack.redis.client()
    until(lambda: redis.exists(key))
    until(lambda: not stack.sql("SELECT 1 FROM batch WHERE id = %s AND routed_ms IS NULL", batch))
    redis.delete(key)
    env = stack.cli_env(tenant)
    found = cli("verify", "--json", env=env, check=1).stdout
    assert "DIFFERENCE_SPEC_MISSING" in found or "spec_missing" in found.lower(), found
    cli("verify", "--repair", env=env, check=None)
    until(lambda: redis.exists(key))
    redis.set(f"{{t{tenant.number}.b7}}:values:999999", b"left")
    cli("verify", "--repair", env=env, check=None)
    until(lambda: not redis.exists(f"{{t{tenant.number}.b7}}:values:999999"))
    redis.flushall()
    until(lambda: redis.exists(key))
    stack.workers[0].kill()
    devices = {d: stack.device(d, tokens[d], answer=good(pb)).connect(stack.workers[1].address) for d in ids}
    for b in (batch, later):
        assert progress(stack.watch(client, b)) == {"succeeded": 3}
    for d, device in devices.items():
        assert {device.next().command.lock.passcode for _ in range(2)} == {values[d]}
        device.close()


# --- the command line --------------------------------------------------------------------------------------------------

def test_the_command_line(api, cli, tmp_path):
    pb = api.pb
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    api.import_devices(client, ["a", "b", "c"])
    tokens = api.tokens(client, ["a", "b", "c"])
    env, file = api.cli_env(tenant), tmp_path / "values.csv"
    flags = ["batch", "submit", "--type", "lock", "--passcode", "{{code}}", "--message", "{{hint}}", "--values", file]
    file.write_bytes(b'id,code,hint\r\n\r\na,0012,"say ""a"",\nthen go"\r\nb,34,\r\n')
    out = cli(*flags, env=env, check=0).stdout
    assert "2 devices" in out and "values       of 2 devices: code hint" in out and "0012" not in out
    with api.device("a", tokens["a"]) as a:
        assert a.connect(api.workers[0].address).next().command == lock(pb, passcode="0012", message='say "a",\nthen go')
    file.write_text("id,code,hint\na,1,x\n*,9,none")
    out = cli(*flags, "--all", env=env, check=0).stdout
    assert "3 devices" in out and "values       of 1 devices: code hint; defaults for the others" in out
    assert "would address 3 devices" in cli(*flags, "--all", "--validate-only", env=env, check=0).stdout
    for text, said in (("", "line 1: must be a heading"), ("id\n", "line 1: must be a heading"),
                       ("device,code\n", "line 1: must be a heading"), ("id,code,a-b\na,1,2", 'line 1: "a-b" is no name'),
                       ("id" + ",x" * 9 + "\n", "line 1: has more than 8 variables"), ("id,code,hint\n", "has no line for a device"),
                       ("id,code,hint\na,1,2\n\nb,1\n", "line 4: has 2 fields, the heading has 3"),
                       ("id,code,hint\na,1,2,3\n", "line 2: has 4 fields"), ("id,code,hint\n,1,2\n", "line 2: has no device id"),
                       ('id,code,hint\na,1,"2\n', "line 2: a quoted field does not end"),
                       ('id,code,hint\na,"1"x,2\n', "line 2: something follows a quoted field"),
                       ('id,code,hint\na,"1"\rx,2\n', "line 2: something follows a quoted field"),
                       ('id,code,hint\na,"1","2"\0' * 50, "line 2: something follows a quoted field"),
                       ("id,code,hint\na,1,2\nb,1,2\na,3,4\n", "line 4: device a has line 2 already"),
                       ("id,code,hint\n*,1,2\n*,1,2\n", "line 3: is the second one for *"),
                       ("id,code,hint\na,1," + "x" * 4097, "line 2: the value of hint has 4097 bytes, allowed are 4096"),
                       (b"id,code,hint\na,1,\xff\n", "line 2: the value of hint is not UTF-8"),
                       (b"id,code,hint\na,1,\0\n", "line 2: the value of hint is not UTF-8")):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert said in cli(*flags, env=env, check=2).stderr, text
    file.write_text("id,code,hint\na,1,2\nnobody,1,2\n")
    assert "VALUES_OUTSIDE_TARGET" in cli(*flags, "--all", env=env, check=3).stderr
    assert "exactly one of" in cli(*flags, "--exclude-device", "b", env=env, check=2).stderr


@pytest.mark.skipif(not os.environ.get("MUSTER_LARGE"), reason="a minute; by hand")
def test_three_hundred_thousand(api, client):
    pb = api.pb
    ids = [f"large-{i:06d}" for i in range(300000)]
    api.import_devices(client, ids)
    batch = submit(api, client, one(pb, {d: secrets.token_hex(8) for d in ids})).batch
    assert batch.values.device_count == 300000
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id))
    api.watch(client, batch.id)
