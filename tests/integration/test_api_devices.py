"""DeviceService: registration, lists, removal, credentials, groups."""
import base64
import hashlib
import hmac
import struct
import time

import grpc
import pytest
from harness.answers import refused


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


def all_devices(client, pb, **fields):
    out, token = [], ""
    while True:
        a = client.devices.ListDevices(pb.ListDevicesRequest(page_token=token, **fields))
        out += a.devices
        token = a.next_page_token
        if not token:
            return out


def blocks_agree(api, client):
    """The bitmaps say what the rows say."""
    tenant = client.tenant
    rows = {(p, s) for p, s in api.sql("SELECT platform, seq FROM device WHERE tenant_id = %s AND deleted_ms IS NULL", tenant)}
    bits = {(p, b * 1024 + i) for b, p, slots in
            api.sql("SELECT block, platform, slots FROM device_block WHERE tenant_id = %s", tenant)
            for i in range(1024) if bytes(slots)[i // 8] >> i % 8 & 1}
    assert rows == bits
    assert api.sql("SELECT devices FROM tenant WHERE id = %s", tenant) == [(len(rows),)]


@pytest.fixture
def numbered(api):
    """A client that knows its tenant's number."""
    tenant = api.make_tenant()
    c = api.client(tenant)
    c.tenant = tenant.number
    return c


def test_import_and_again(api, numbered):
    pb, ids = api.pb, [f"d{i}" for i in range(2500)]
    a = api.import_devices(numbered, ids, platforms=(1, 2))
    assert (a.created, a.updated) == (2500, 0)
    a = api.import_devices(numbered, ids + ["new"], platforms=(1, 2))
    assert (a.created, a.updated) == (1, 2500)
    blocks_agree(api, numbered)
    a = api.import_devices(numbered, ids[:3], platforms=(6,))
    assert (a.created, a.updated) == (0, 3)
    blocks_agree(api, numbered)
    d = all_devices(numbered, pb)
    assert [x.id for x in d] == ids + ["new"] and [x.seq for x in d] == list(range(2501))
    assert [x.platform for x in d[:4]] == [6, 6, 6, 2]


def test_import_of_one_id_twice_in_a_message(api, numbered):
    pb = api.pb
    a = numbered.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id="x", platform=1), pb.Device(id="y"), pb.Device(id="x", platform=3)])]))
    assert (a.created, a.updated) == (2, 0)
    blocks_agree(api, numbered)
    assert {d.id: d.platform for d in all_devices(numbered, pb)} == {"x": 3, "y": 0}


def test_import_of_nothing(api, client):
    pb = api.pb
    for messages in ([], [pb.ImportDevicesRequest()]):
        a = client.devices.ImportDevices(iter(messages))
        assert (a.created, a.updated) == (0, 0)


def test_import_refuses_bad_devices(api, client):
    pb = api.pb
    good = pb.ImportDevicesRequest(devices=[pb.Device(id="good")])
    bad = pb.ImportDevicesRequest(devices=[pb.Device(id="ok"), pb.Device(id="not ok", platform=99)])
    fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
                     lambda: client.devices.ImportDevices(iter([good, bad])))
    assert set(fields) == {"devices[1].id", "devices[1].platform"}
    assert [d.id for d in all_devices(client, pb)] == ["good"]
    many = pb.ImportDevicesRequest(devices=[pb.Device(id=f"m{i}") for i in range(10001)])
    assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
                       lambda: client.devices.ImportDevices(iter([many])))) == {"devices"}


def test_two_imports_at_once_give_every_device_one_number(api, numbered):
    import concurrent.futures
    pb, ids = api.pb, [f"c{i}" for i in range(4000)]

    def run(k):
        part = ids[k * 500:k * 500 + 1500]
        return numbered.devices.ImportDevices(iter([
            pb.ImportDevicesRequest(devices=[pb.Device(id=i, platform=1) for i in part[n:n + 250]])
            for n in range(0, len(part), 250)]))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(run, range(6)))
    assert sum(a.created for a in answers) == 4000
    assert sorted(d.seq for d in all_devices(numbered, pb)) == list(range(4000))
    blocks_agree(api, numbered)


def test_get(api, client):
    pb = api.pb
    api.import_devices(client, ["one"])
    d = client.devices.GetDevice(pb.GetDeviceRequest(device_id="one")).device
    assert (d.id, d.platform, d.seq, d.connection) == ("one", 1, 0, pb.CONNECTION_OFFLINE)
    assert abs(d.created_at.ToMilliseconds() / 1000 - time.time()) < 60
    refused(api, grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND",
            lambda: client.devices.GetDevice(pb.GetDeviceRequest(device_id="two")))
    refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
            lambda: client.devices.GetDevice(pb.GetDeviceRequest(device_id="")))


def test_list_pages_and_filters(api, client):
    pb, ids = api.pb, [f"l{i}" for i in range(60)]
    api.import_devices(client, ids)
    client.devices.CreateGroup(pb.CreateGroupRequest(name="even", device_ids=ids[::2]))
    assert [d.id for d in all_devices(client, pb, page_size=7)] == ids
    assert [d.id for d in all_devices(client, pb, page_size=7, platform=3)] == ids[2::6]
    assert [d.id for d in all_devices(client, pb, page_size=7, group="even")] == ids[::2]
    assert [d.id for d in all_devices(client, pb, page_size=3, group="even", platform=5)] == ids[4::6]
    assert all_devices(client, pb, group="even", platform=2) == []


def test_page_tokens_belong_to_their_list(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b", "c"])
    token = client.devices.ListDevices(pb.ListDevicesRequest(page_size=1)).next_page_token
    for call in (lambda: client.devices.ListDevices(pb.ListDevicesRequest(page_token=token, platform=1)),
                 lambda: client.devices.ListDevices(pb.ListDevicesRequest(page_token=token + "x")),
                 lambda: client.devices.ListDevices(pb.ListDevicesRequest(page_token="\u00e4")),
                 lambda: client.devices.ListGroups(pb.ListGroupsRequest(page_token=token)),
                 lambda: client.commands.ListBatches(pb.ListBatchesRequest(page_token=token))):
        assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", call)) == {"page_token"}
    assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: client.devices.ListDevices(
        pb.ListDevicesRequest(page_size=10001)))) == {"page_size"}


def test_delete(api, numbered):
    pb = api.pb
    api.import_devices(numbered, ["a", "b", "c"])
    numbered.devices.CreateGroup(pb.CreateGroupRequest(name="g", device_ids=["a", "b"]))
    numbered.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="b"))
    blocks_agree(api, numbered)
    refused(api, grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND",
            lambda: numbered.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="b")))
    assert [d.id for d in all_devices(numbered, pb, group="g")] == ["a"]
    assert numbered.devices.ListGroups(pb.ListGroupsRequest()).groups[0].device_count == 1
    (before,), = api.sql("SELECT issued_before_ms FROM revocation WHERE tenant_id = %s AND seq = 1", numbered.tenant)
    assert before > 10 * 365 * 86400 * 1000 + time.time() * 1000
    # The same id again is another device.
    api.import_devices(numbered, ["b"])
    assert numbered.devices.GetDevice(pb.GetDeviceRequest(device_id="b")).device.seq == 3
    blocks_agree(api, numbered)
    assert api.sql("SELECT count(*) FROM audit WHERE tenant_id = %s AND action = 'delete_device'", numbered.tenant) == [(1,)]


def read_token(token):
    assert token.startswith("mt1.")
    raw = base64.urlsafe_b64decode(token[4:] + "=" * (-len(token[4:]) % 4))
    return struct.unpack("<IIIQQ", raw[:28]), raw[:28], raw[28:]


def test_credentials(api, numbered):
    pb = api.pb
    api.import_devices(numbered, ["a", "b"])
    answer = numbered.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["b", "a"], lifetime={"seconds": 3600}))
    assert [c.device_id for c in answer.credentials] == ["b", "a"]
    keys = dict(api.sql("SELECT id, secret FROM signing_key"))
    for c, seq in zip(answer.credentials, (1, 0)):
        (key, tenant, number, issued, expires), signed, mac = read_token(c.token)
        assert (tenant, number, expires - issued) == (numbered.tenant, seq, 3600 * 1000)
        assert mac == hmac.new(bytes(keys[key]), signed + c.device_id.encode(), hashlib.sha256).digest()
        assert c.expires_at.ToMilliseconds() == expires
    default = numbered.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["a"])).credentials[0]
    (_, _, _, issued, expires), _, _ = read_token(default.token)
    assert expires - issued == 365 * 86400 * 1000


def test_revoking_earlier_credentials(api, numbered):
    pb = api.pb
    api.import_devices(numbered, ["a", "b"])

    def issue(**fields):
        answer = numbered.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["a", "b"], **fields))
        return [read_token(c.token)[0][3] for c in answer.credentials]
    issued = issue()
    for _ in range(5):
        fresh = issue(revoke_earlier=True)
        before = dict(api.sql("SELECT seq, issued_before_ms FROM revocation WHERE tenant_id = %s", numbered.tenant))
        for seq in (0, 1):
            assert issued[seq] < before[seq] <= fresh[seq]
        issued = issue()
        assert all(issued[s] >= before[s] for s in (0, 1))


def test_credentials_are_refused(api, client):
    pb = api.pb
    api.import_devices(client, ["a"])
    refused(api, grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND",
            lambda: client.devices.IssueCredentials(pb.IssueCredentialsRequest(device_ids=["a", "b"])))
    for fields, field in (({"device_ids": []}, "device_ids"), ({"device_ids": ["a"], "lifetime": {"seconds": 59}}, "lifetime"),
                          ({"device_ids": ["a"], "lifetime": {"seconds": 11 * 366 * 86400}}, "lifetime")):
        assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda f=fields:
                           client.devices.IssueCredentials(pb.IssueCredentialsRequest(**f)))) == {field}


def test_groups(api, client):
    pb, ids = api.pb, [f"g{i}" for i in range(3000)]
    api.import_devices(client, ids)
    g = client.devices.CreateGroup(pb.CreateGroupRequest(name="g", device_ids=ids[:2000] + ids[:10])).group
    assert (g.name, g.device_count) == ("g", 2000)
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "GROUP_EXISTS",
            lambda: client.devices.CreateGroup(pb.CreateGroupRequest(name="g")))
    g = client.devices.UpdateGroup(pb.UpdateGroupRequest(name="g", add_device_ids=ids[1990:2500],
                                                         remove_device_ids=ids[:100] + ["no-such"])).group
    assert g.device_count == 2400
    assert [d.id for d in all_devices(client, pb, group="g")] == ids[100:2500]
    fields = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_DEVICES", lambda: client.devices.UpdateGroup(
        pb.UpdateGroupRequest(name="g", add_device_ids=["nobody"], remove_device_ids=ids)))
    assert "nobody" in fields["add_device_ids"]
    refused(api, grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_DEVICES", lambda: client.devices.CreateGroup(
        pb.CreateGroupRequest(name="h", device_ids=["nobody", ids[0]])))
    for i in range(5):
        client.devices.CreateGroup(pb.CreateGroupRequest(name=f"z{i}"))
    a = client.devices.ListGroups(pb.ListGroupsRequest(page_size=4))
    assert [(g.name, g.device_count) for g in a.groups] == [("g", 2400), ("z0", 0), ("z1", 0), ("z2", 0)]
    a = client.devices.ListGroups(pb.ListGroupsRequest(page_size=4, page_token=a.next_page_token))
    assert [g.name for g in a.groups] == ["z3", "z4"] and not a.next_page_token
    client.devices.DeleteGroup(pb.DeleteGroupRequest(name="g"))
    refused(api, grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND",
            lambda: client.devices.UpdateGroup(pb.UpdateGroupRequest(name="g")))
    refused(api, grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND",
            lambda: client.devices.DeleteGroup(pb.DeleteGroupRequest(name="g")))
    assert len(all_devices(client, pb)) == 3000
