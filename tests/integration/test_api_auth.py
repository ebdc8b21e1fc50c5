"""Who may call what: keys, roles, and what an unknown key learns."""
import time

import grpc
import pytest
from harness.patience import patient
from harness.stack import OPERATOR, READ_ONLY
from harness.until import until


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


def refused(api, call, code, reason):
    with pytest.raises(grpc.RpcError) as e:
        call()
    assert e.value.code() == code, e.value
    assert api.stubs.details(e.value)[0] == reason
    return e.value


def list_batches(client, pb):
    return lambda: client.commands.ListBatches(pb.ListBatchesRequest())


def test_no_key(api):
    refused(api, list_batches(api.client(None), api.pb), grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")


@pytest.mark.parametrize("key", ["x", "muster_", "muster_1_", "muster_0_" + "0" * 64, "muster_1_" + "0" * 63,
                                 "muster_1_" + "0" * 65, "muster_1_" + "g" * 64, "muster_-1_" + "0" * 64,
                                 "muster_99999999999999999999_" + "0" * 64, "muster_999999_" + "0" * 64])
def test_no_such_key(api, key):
    refused(api, list_batches(api.client(key), api.pb), grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")


def test_wrong_secret_of_a_known_key(api):
    key = api.make_tenant().key
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    for _ in range(3):
        refused(api, list_batches(api.client(wrong), api.pb), grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
        list_batches(api.client(key), api.pb)()


def test_not_a_bearer(api):
    pb, key = api.pb, api.make_tenant().key
    c = api.client(None)
    stub = api.stubs.services["Command"](c.channel)
    for value in ("Basic " + key, key, "Bearer", ""):
        refused(api, lambda v=value: stub.ListBatches(pb.ListBatchesRequest(), metadata=[("authorization", v)]),
                grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
    stub.ListBatches(pb.ListBatchesRequest(), metadata=[("authorization", "bearer " + key)])


def test_roles(api):
    pb = api.pb
    tenant = api.make_tenant()
    operator = api.client(api.make_key(tenant.number, OPERATOR))
    reader = api.client(api.make_key(tenant.number, READ_ONLY))
    api.import_devices(operator, ["role-1"])
    batch = api.submit(operator).batch
    for call in (lambda: api.submit(reader),
                 lambda: reader.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id)),
                 lambda: api.import_devices(reader, ["x"]),
                 lambda: reader.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="role-1")),
                 lambda: reader.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["role-1"])),
                 lambda: reader.devices.CreateGroup(pb.CreateGroupRequest(name="g")),
                 lambda: reader.devices.UpdateGroup(pb.UpdateGroupRequest(name="g")),
                 lambda: reader.devices.DeleteGroup(pb.DeleteGroupRequest(name="g")),
                 lambda: operator.admin.CreateTenant(pb.CreateTenantRequest(name="t")),
                 lambda: operator.admin.ListTenants(pb.ListTenantsRequest()),
                 lambda: reader.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=1))):
        refused(api, call, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT")
    assert reader.commands.GetBatch(pb.GetBatchRequest(batch_id=batch.id)).batch.id == batch.id
    assert reader.devices.GetDevice(pb.GetDeviceRequest(device_id="role-1")).device.id == "role-1"


def test_a_revoked_key_ends_within_a_second(api):
    pb = api.pb
    tenant = api.make_tenant()
    admin = api.client(tenant)
    made = admin.admin.CreateApiKey(pb.CreateApiKeyRequest(tenant=tenant.name, role=pb.ROLE_READ_ONLY))
    c = api.client(made.secret)
    list_batches(c, pb)()
    admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.id))
    revoked = time.monotonic()
    with pytest.raises(grpc.RpcError) as e:
        while True:
            began = time.monotonic()
            list_batches(c, pb)()
            assert began - revoked < patient(1.5)
    assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_tenant_keeps_no_other_from_watching(api):
    """By asking for the other's batch, whose number is easily guessed."""
    pb = api.pb
    a, b = api.client(api.make_tenant()), api.client(api.make_tenant())
    api.import_devices(a, ["mine"])
    batch = api.submit(a).batch.id
    locks = api.postgres.connect(api.database)
    locks.autocommit = False
    locks.cursor().execute("LOCK TABLE batch IN ACCESS EXCLUSIVE MODE")
    not_its = b.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch))
    until(lambda: api.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))  # it is not told yet
    own = a.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch))
    until(lambda: api.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' OFFSET 1"))
    locks.close()
    assert next(iter(own)).batch.id == batch
    own.cancel()
    refused(api, lambda: list(not_its), grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND")


def test_tenants_do_not_see_one_another(api):
    pb = api.pb
    a, b = api.client(api.make_tenant()), api.client(api.make_tenant())
    api.import_devices(a, ["mine"])
    api.import_devices(b, ["other"])
    a.devices.CreateGroup(pb.CreateGroupRequest(name="group", device_ids=["mine"]))
    batch = api.submit(a).batch
    command = api.list_commands(a, batch.id)[0]
    not_found = grpc.StatusCode.NOT_FOUND
    refused(api, lambda: b.commands.GetBatch(pb.GetBatchRequest(batch_id=batch.id)), not_found, "BATCH_NOT_FOUND")
    refused(api, lambda: b.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id)), not_found, "BATCH_NOT_FOUND")
    refused(api, lambda: b.commands.ListCommands(pb.ListCommandsRequest(batch_id=batch.id)), not_found, "BATCH_NOT_FOUND")
    refused(api, lambda: list(b.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch.id))), not_found, "BATCH_NOT_FOUND")
    refused(api, lambda: b.commands.GetCommand(pb.GetCommandRequest(command_id=command.command_id)), not_found,
            "COMMAND_NOT_FOUND")
    refused(api, lambda: b.devices.GetDevice(pb.GetDeviceRequest(device_id="mine")), not_found, "DEVICE_NOT_FOUND")
    refused(api, lambda: b.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="mine")), not_found, "DEVICE_NOT_FOUND")
    refused(api, lambda: b.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id="mine")), not_found,
            "DEVICE_NOT_FOUND")
    refused(api, lambda: b.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["mine"])), not_found,
            "DEVICE_NOT_FOUND")
    refused(api, lambda: b.devices.ListDevices(pb.ListDevicesRequest(group="group")), not_found, "GROUP_NOT_FOUND")
    refused(api, lambda: b.devices.DeleteGroup(pb.DeleteGroupRequest(name="group")), not_found, "GROUP_NOT_FOUND")
    refused(api, lambda: api.submit(b, target=pb.Target(groups=pb.GroupNames(names=["group"]))), not_found,
            "GROUP_NOT_FOUND")
    answer = api.submit(b, target=pb.Target(devices=pb.DeviceIds(ids=["mine", "other"])))
    assert (answer.batch.device_count, answer.unknown_count) == (1, 1)
    assert [x.id for x in b.commands.ListBatches(pb.ListBatchesRequest()).batches] == [answer.batch.id]
    # The same request id of another tenant is another request.
    assert api.submit(a, request_id="same").batch.id != api.submit(b, request_id="same").batch.id
