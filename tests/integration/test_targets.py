"""Filters, exclusion, groups with filters, digests: which devices a target means, against a model in Python."""
import grpc
import pytest
from harness.answers import refusal
from harness.until import until

N = 3000
STORES = [f"store-{n}" for n in range(20)]
VERSIONS = ["17.2", "17.2.0", "17.10", "16.7.4", "9", "10.0.19045.3803", "17.2 beta", "beta", ""]
MODELS = ["iPhone15,2", "iPhone14,1", "Pixel \"8\"", "", "ThinkPad Ö"]


class Phone:
    """What the model knows of a device."""

    def __init__(self, n):
        self.seq, self.id, self.platform = n, f"t-{n:05d}", n % 7
        self.tags = {STORES[n % 20]} | ({"pilot"} if n % 11 == 0 else set()) | ({"Fuß 日本"} if n % 13 == 0 else set())
        self.os, self.model = VERSIONS[n % 9], MODELS[n % 5]
        self.attributes = {"department": ("sales", "it")[n % 2]} if n % 3 else {}
        if n % 4 == 0:
            self.attributes["level"] = str(n % 12)
        self.seen = (1, 25, 47, 240, None)[n % 5]  # hours ago

    def version(self):
        head = self.os.split(" ")[0]
        if not head or not head[0].isdigit():
            return None
        numbers = [int(x) for x in head.split(".")]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return numbers


FLEET = [Phone(n) for n in range(N)]


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


def message(api, phones, **fields):
    pb = api.pb
    return pb.ImportDevicesRequest(devices=[
        pb.Device(id=p.id, platform=p.platform, tags=sorted(p.tags), attributes=p.attributes,
                  information=pb.DeviceInformation(os_version=p.os, model=p.model)) for p in phones], **fields)


@pytest.fixture(scope="module")
def tenant(api):
    return api.make_tenant()


@pytest.fixture(scope="module")
def client(api, tenant):
    c = api.client(tenant)
    c.devices.ImportDevices(message(api, FLEET[i:i + 1000]) for i in range(0, N, 1000))
    (now,), = api.sql("SELECT floor(extract(epoch FROM clock_timestamp()) / 3600)::integer")
    seen = [p for p in FLEET if p.seen is not None]
    api.sql("INSERT INTO device_seen SELECT %s, %s - u.ago, u.seq / 1024, "
            "bit_or(set_bit(repeat('0', 1024)::bit(1024), u.seq %% 1024, 1)) "
            "FROM unnest(%s, %s) AS u (seq, ago) GROUP BY u.ago, u.seq / 1024",
            tenant.number, now, [p.seq for p in seen], [p.seen for p in seen])
    for name, ids in (("first", [p.id for p in FLEET[:100]]), ("odd", [p.id for p in FLEET if p.seq % 2])):
        c.devices.CreateGroup(api.pb.CreateGroupRequest(name=name, device_ids=ids))
    c.devices.CreateGroup(api.pb.CreateGroupRequest(name="pilots", filter="tag = pilot"))
    c.devices.CreateGroup(api.pb.CreateGroupRequest(name="odd-pilots", filter="group = pilots and group = odd"))
    # Somebody else's devices with the same labels.
    other = api.client(api.make_tenant())
    other.devices.ImportDevices(iter([message(api, FLEET[:50])]))
    return c


def addressed(api, client, **target):
    """(seqs, answer) of a batch to that target."""
    answer = api.submit(client, target=api.pb.Target(**target))
    seqs = []
    for block, first, bits in api.sql("SELECT block, first, targets FROM batch_block WHERE batch_id = %s ORDER BY block",
                                      answer.batch.id):
        seqs += [block * 1024 + first + 8 * i + k for i, byte in enumerate(bytes(bits)) for k in range(8) if byte >> k & 1]
    assert answer.batch.device_count == len(seqs)
    return seqs, answer


def refused(api, code, reason, call):
    """The field violations of a call that must fail so, and its error."""
    error = refusal(api, code, reason, call)
    return api.stubs.details(error)[1], error


def newer(p, *numbers):
    return p.version() is not None and p.version() > list(numbers)


TABLE = [
    ('tag = "store-12"', lambda p: "store-12" in p.tags),
    ("tag != store-12", lambda p: "store-12" not in p.tags),
    ("tag in (store-1, store-2, nowhere)", lambda p: p.tags & {"store-1", "store-2"}),
    ("tag not in (store-1, pilot)", lambda p: not p.tags & {"store-1", "pilot"}),
    ("tag startswith store-1", lambda p: any(t.startswith("store-1") for t in p.tags)),
    ("tag exists", lambda p: True),
    ('tag = "Fuß 日本"', lambda p: p.seq % 13 == 0),
    ("platform = ios or platform = Windows", lambda p: p.platform in (1, 6)),
    ("platform not in (unspecified, ios)", lambda p: p.platform > 1),
    ("os_version = 17.2", lambda p: p.os in ("17.2", "17.2.0", "17.2 beta")),
    ('os_version in ("17.2 beta", 9)', lambda p: p.os in ("17.2 beta", "9")),
    ("os_version = beta", lambda p: p.os == "beta"),
    ("os_version > 17.2", lambda p: newer(p, 17, 2)),
    ("os_version >= 17.2.0 and os_version <= 17.2", lambda p: p.version() == [17, 2]),
    ("os_version < 10.0.19045.3803", lambda p: p.version() is not None and p.version() < [10, 0, 19045, 3803]),
    ("not os_version exists", lambda p: p.os == ""),
    ('os_version startswith "17.2"', lambda p: p.os.startswith("17.2")),
    ("model startswith iPhone", lambda p: p.model.startswith("iPhone")),
    ('model = "Pixel \\"8\\""', lambda p: p.model == 'Pixel "8"'),
    ('attr.department = "sales"', lambda p: p.attributes.get("department") == "sales"),
    ("attr.department != sales", lambda p: p.attributes.get("department") != "sales"),
    ("attr.level < 10 and attr.level exists", lambda p: int(p.attributes.get("level", 99)) < 10),
    ("attr.unheard-of exists", lambda p: False),
    ("device_id in (t-00007, t-02999, nobody)", lambda p: p.seq in (7, 2999)),
    ("device_id startswith t-01", lambda p: p.id.startswith("t-01")),
    ("last_seen within 12h", lambda p: p.seen == 1),
    ("last_seen within 3d", lambda p: p.seen in (1, 25, 47)),
    ("last_seen not within 2d", lambda p: p.seen is None or p.seen > 48),
    ("group = first", lambda p: p.seq < 100),
    ("group not in (first, odd)", lambda p: p.seq >= 100 and p.seq % 2 == 0),
    ("group = pilots", lambda p: "pilot" in p.tags),
    ("group = odd-pilots or group = first", lambda p: p.seq < 100 or ("pilot" in p.tags and p.seq % 2)),
    ("not (group = odd or tag = pilot) and not platform = ios",
     lambda p: not (p.seq % 2 or "pilot" in p.tags) and p.platform != 1),
    ('os_version < 17.2 and tag = "store-12" and last_seen within 7d',
     lambda p: p.version() is not None and p.version() < [17, 2] and "store-12" in p.tags and p.seen is not None),
]


@pytest.mark.parametrize("text,matches", TABLE, ids=[t for t, _ in TABLE])
def test_filter_means_what_the_model_says(api, client, text, matches):
    wanted = [p.seq for p in FLEET if matches(p)]
    if wanted:
        assert addressed(api, client, filter=text)[0] == wanted
    else:
        refused(api, grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_TARGET", lambda: addressed(api, client, filter=text))


def test_positions_of_errors(api, client):
    pb = api.pb
    violations, error = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: addressed(
        api, client, filter='tag = "ü" and\n  os_version < beta'))
    assert violations == {"target.filter": 'line 2, column 16: expected a version such as 17.2, found "beta"'}
    assert api.stubs.metadata(error) == {"line": "2", "column": "16", "expected": "a version such as 17.2"}
    violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: addressed(
        api, client, all=True, exclude=pb.Target(filter="tag")))
    assert violations == {"target.exclude.filter": "line 1, column 4: expected =, !=, in, not in, startswith or exists,"
                                                   " found the end"}
    violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: addressed(
        api, client, all=True, exclude=pb.Target(all=True, exclude=pb.Target(all=True))))
    assert violations == {"target.exclude.exclude": "must not be set"}
    for call in (lambda: client.devices.ListDevices(pb.ListDevicesRequest(filter="tag ==")),
                 lambda: client.devices.CreateGroup(pb.CreateGroupRequest(name="bad", filter="tag ==")),
                 lambda: client.devices.UpdateGroup(pb.UpdateGroupRequest(name="pilots", filter="tag =="))):
        violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", call)
        assert list(violations) == ["filter"]
    violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
                            lambda: addressed(api, client, filter="tag = a" + " " * 4096))
    assert "at most 4096 bytes" in violations["target.filter"]


@pytest.mark.parametrize("exclude,out", [
    ({"platform": 1}, lambda p: p.platform == 1),
    ({"filter": "tag = pilot"}, lambda p: "pilot" in p.tags),
    ({"ids": ["t-00003", "nobody", "t-02999"]}, lambda p: p.seq in (3, 2999)),
    ({"groups": ["first", "pilots"]}, lambda p: p.seq < 100 or "pilot" in p.tags)])
def test_exclude(api, client, exclude, out):
    pb = api.pb
    other = pb.Target(platform=exclude["platform"]) if "platform" in exclude else \
        pb.Target(filter=exclude["filter"]) if "filter" in exclude else \
        pb.Target(devices=pb.DeviceIds(ids=exclude["ids"])) if "ids" in exclude else \
        pb.Target(groups=pb.GroupNames(names=exclude["groups"]))
    seqs, answer = addressed(api, client, all=True, exclude=other)
    assert seqs == [p.seq for p in FLEET if not out(p)]
    assert answer.unknown_count == 0
    ids = [p.id for p in FLEET[:500]] + ["unheard-of"]
    seqs, answer = addressed(api, client, devices=pb.DeviceIds(ids=ids), exclude=other)
    assert seqs == [p.seq for p in FLEET[:500] if not out(p)] and list(answer.unknown_device_ids) == ["unheard-of"]
    answer = api.submit(client, validate_only=True, target=pb.Target(filter="tag exists", exclude=other))
    assert {c.platform: c.devices for c in answer.platforms} == {
        n: sum(p.platform == n and not out(p) for p in FLEET) for n in range(7) if any(
            p.platform == n and not out(p) for p in FLEET)}


def test_an_excluded_id_that_is_unknown_is_refused_where_all_must_be_known(api, client):
    """A mistyped one would get what it was to be spared."""
    pb = api.pb
    bad = grpc.StatusCode.INVALID_ARGUMENT
    mistyped = pb.Target(devices=pb.DeviceIds(ids=["t-00003", "t-0004x"]))
    both = pb.Target(devices=pb.DeviceIds(ids=["t-00003", "t-00005", "nobody"]), exclude=mistyped)
    (before,) = api.sql("SELECT count(*) FROM batch")
    for extra in ({}, {"validate_only": True}):
        fields, error = refused(api, bad, "UNKNOWN_DEVICES", lambda: api.submit(
            client, require_all_known=True, target=pb.Target(all=True, exclude=mistyped), **extra))
        assert fields == {"target.exclude.devices.ids": "t-0004x is not registered"}
        assert "1 of the devices listed" in error.details()
        fields, error = refused(api, bad, "UNKNOWN_DEVICES", lambda: api.submit(
            client, require_all_known=True, target=both, **extra))
        assert fields == {"target.devices.ids": "nobody is not registered",
                          "target.exclude.devices.ids": "t-0004x is not registered"}
        assert "2 of the devices listed" in error.details()
    assert api.sql("SELECT count(*) FROM batch") == [before]
    known = pb.Target(devices=pb.DeviceIds(ids=["t-00003"]))
    assert api.submit(client, require_all_known=True, request_id="known", target=pb.Target(
        all=True, exclude=known)).batch.device_count == N - 1
    batch = api.submit(client, target=both).batch.id
    for target in (pb.Target(all=True, exclude=mistyped), both):
        fields, _ = refused(api, bad, "UNKNOWN_DEVICES", lambda: client.commands.CancelBatch(
            pb.CancelBatchRequest(batch_id=batch, target=target)))
        assert fields["target.exclude.devices.ids"] == "t-0004x is not registered"
    assert not client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch.HasField("control")
    assert client.commands.CancelBatch(pb.CancelBatchRequest(
        batch_id=batch, target=pb.Target(all=True, exclude=known))).devices == 1


def test_groups_in_a_target_may_have_filters(api, client):
    names = api.pb.GroupNames(names=["odd-pilots", "first"])
    assert addressed(api, client, groups=names)[0] == [
        p.seq for p in FLEET if p.seq < 100 or ("pilot" in p.tags and p.seq % 2)]


def test_group_with_a_filter_follows_its_filter_and_its_devices(api, client):
    pb = api.pb
    group = client.devices.CreateGroup(pb.CreateGroupRequest(name="moving", filter="attr.shift = night")).group
    assert group.filter == "attr.shift = night" and group.device_count == 0
    members = lambda: [d.seq for d in client.devices.ListDevices(pb.ListDevicesRequest(group="moving")).devices]
    assert members() == []
    client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id=p.id, platform=p.platform, attributes={"shift": "night"}) for p in FLEET[10:13]])]))
    assert members() == [10, 11, 12]
    assert addressed(api, client, groups=pb.GroupNames(names=["moving"]))[0] == [10, 11, 12]
    group = client.devices.UpdateGroup(pb.UpdateGroupRequest(name="moving", filter="attr.shift = night and tag = store-11"))
    assert group.group.filter == "attr.shift = night and tag = store-11" and members() == [11]
    assert {g.name: g.filter for g in client.devices.ListGroups(pb.ListGroupsRequest()).groups}["pilots"] == "tag = pilot"
    client.devices.DeleteGroup(pb.DeleteGroupRequest(name="moving"))
    refused(api, grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND", lambda: addressed(api, client, filter="group != moving"))


def test_groups_that_contradict(api, client):
    pb = api.pb
    change = client.devices.UpdateGroup
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "GROUP_HAS_FILTER",
            lambda: change(pb.UpdateGroupRequest(name="pilots", add_device_ids=["t-00000"])))
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "GROUP_HAS_MEMBERS",
            lambda: change(pb.UpdateGroupRequest(name="first", filter="tag = a")))
    violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: client.devices.CreateGroup(
        pb.CreateGroupRequest(name="both", filter="tag = a", device_ids=["t-00000"])))
    assert list(violations) == ["device_ids"]
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "GROUP_EXISTS",
            lambda: client.devices.CreateGroup(pb.CreateGroupRequest(name="first", filter="tag = a")))
    for name in ("ring-a", "ring-b"):
        client.devices.CreateGroup(pb.CreateGroupRequest(name=name, filter="group = ring-b or group = ring-a"))
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "GROUP_CYCLE", lambda: addressed(api, client, filter="group = ring-a"))
    for n in range(7):
        text = f"group = chain-{n - 1}" if n else "tag = pilot"
        client.devices.CreateGroup(pb.CreateGroupRequest(name=f"chain-{n}", filter=text))
    assert addressed(api, client, filter="group = chain-4")[0] == [p.seq for p in FLEET if "pilot" in p.tags]
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "GROUP_NESTING",
            lambda: addressed(api, client, filter="group = chain-6"))


def test_list_by_filter_in_pages(api, client):
    pb = api.pb
    seqs, token = [], ""
    while True:
        answer = client.devices.ListDevices(pb.ListDevicesRequest(filter="tag = pilot", page_size=100, page_token=token))
        assert len(answer.devices) <= 100
        seqs += [d.seq for d in answer.devices]
        token = answer.next_page_token
        if not token:
            break
    assert seqs == [p.seq for p in FLEET if "pilot" in p.tags]


def test_labels_are_shown(api, client):
    pb = api.pb
    for d in client.devices.ListDevices(pb.ListDevicesRequest(page_size=2000)).devices:
        p = FLEET[d.seq]
        assert set(d.tags) == p.tags and dict(d.attributes).items() >= p.attributes.items(), p.id
        assert (d.information.os_version, d.information.model) == (p.os, p.model)
        assert d.HasField("last_seen_at") == (p.seen is not None)
    d = client.devices.GetDevice(pb.GetDeviceRequest(device_id="t-00044")).device
    assert sorted(d.tags) == ["pilot", "store-4"] and d.attributes["level"] == "8"


# --- labels at import ------------------------------------------------------------------------------------------------

def labelled(client, pb, device_id):
    d = client.devices.GetDevice(pb.GetDeviceRequest(device_id=device_id)).device
    return set(d.tags), dict(d.attributes), d.information.os_version


def test_import_adds_changes_takes_away_and_replaces(api):
    pb, c = api.pb, api.client(api.make_tenant())

    def give(replace=False, **fields):
        c.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[pb.Device(id="d", **fields)],
                                                              replace_labels=replace)]))
        return labelled(c, pb, "d")
    assert give(tags=["a", "b", "a"], attributes={"x": "1", "y": "2"}) == ({"a", "b"}, {"x": "1", "y": "2"}, "")
    assert give() == ({"a", "b"}, {"x": "1", "y": "2"}, "")
    assert give(tags=["c"], attributes={"x": "3"}) == ({"a", "b", "c"}, {"x": "3", "y": "2"}, "")
    assert give(attributes={"y": "", "z": ""}) == ({"a", "b", "c"}, {"x": "3"}, "")
    assert give(information=pb.DeviceInformation(os_version="1")) == ({"a", "b", "c"}, {"x": "3"}, "1")
    assert give(True, tags=["b"], attributes={"w": "4"}) == ({"b"}, {"w": "4"}, "1")
    assert give(True) == (set(), {}, "1")
    # No row is left of what nobody has.
    assert api.sql("SELECT n.name, sign(k.name_id)::integer FROM label_block k JOIN label_name n ON n.id = abs(k.name_id) "
                   "WHERE n.tenant_id = (SELECT max(id) FROM tenant) ORDER BY 2") == [("os_version", -1), ("os_version", 1)]


def test_bad_labels_are_named(api, client):
    pb = api.pb

    def violations(**fields):
        got, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: client.devices.ImportDevices(
            iter([pb.ImportDevicesRequest(devices=[pb.Device(id="fine"), pb.Device(id="d", **fields)])])))
        return list(got)
    assert violations(tags=["a", ""]) == ["devices[1].tags[1]"]
    assert violations(tags=["x" * 257]) == ["devices[1].tags[0]"]
    assert violations(tags=["x"] * 65) == ["devices[1].tags"]
    assert violations(attributes={"a b": "1"}) == ["devices[1].attributes"]
    assert violations(attributes={"a": "x" * 257}) == ["devices[1].attributes[a]"]
    assert violations(attributes={f"a{n}": "x" for n in range(65)}) == ["devices[1].attributes"]
    assert violations(information=pb.DeviceInformation(os_version="x" * 65, model="x" * 129)) == [
        "devices[1].information.os_version", "devices[1].information.model"]
    refused(api, grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND",
            lambda: client.devices.GetDevice(pb.GetDeviceRequest(device_id="fine")))


def test_names_of_attributes_are_bounded(api):
    pb, c = api.pb, api.client(api.make_tenant())

    def give(names):
        c.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
            pb.Device(id="d", attributes={n: "x" for n in names[i:i + 64]}) for i in range(0, len(names), 64)][0:1])]))
    for first in range(0, 256, 64):
        give([f"name-{n}" for n in range(first, first + 64)])
    give([f"name-{n}" for n in range(64)])
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "TOO_MANY_ATTRIBUTES", lambda: give(["one-more"]))
    c.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id="d", tags=["t"], information=pb.DeviceInformation(os_version="1", model="m"))])]))


def test_deleted_devices_match_nothing(api):
    pb, c = api.pb, api.client(api.make_tenant())
    c.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[pb.Device(id=i, tags=["t"]) for i in ("a", "b", "c")])]))
    c.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="b"))
    assert addressed(api, c, filter="tag = t")[0] == [0, 2]
    assert addressed(api, c, filter="tag != x")[0] == [0, 2]


# --- digests ---------------------------------------------------------------------------------------------------------

def test_digest_freezes_a_target(api):
    pb, c = api.pb, api.client(api.make_tenant())
    register = lambda *ids: c.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id=i, platform=1, tags=["t"]) for i in ids])]))
    register("a", "b")
    target = pb.Target(filter="tag = t")
    seen = api.submit(c, target=target, validate_only=True)
    assert len(seen.target_digest) == 64 and seen.batch.device_count == 2
    # The same devices have the same digest, however they are named; others, or another tenant's, have another.
    both = pb.Target(devices=pb.DeviceIds(ids=["b", "a"]))
    assert api.submit(c, target=both, validate_only=True).target_digest == seen.target_digest
    one = pb.Target(devices=pb.DeviceIds(ids=["a"]))
    assert api.submit(c, target=one, validate_only=True).target_digest == api.submit(c, target=one).target_digest \
        != seen.target_digest
    accepted = api.submit(c, target=target, target_digest=seen.target_digest, request_id="frozen")
    assert accepted.target_digest == seen.target_digest and accepted.batch.device_count == 2
    register("c")
    _, error = refused(api, grpc.StatusCode.FAILED_PRECONDITION, "TARGET_CHANGED",
                       lambda: api.submit(c, target=target, target_digest=seen.target_digest))
    now = api.submit(c, target=target, validate_only=True)
    assert api.stubs.metadata(error) == {"device_count": "3", "target_digest": now.target_digest}
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "TARGET_CHANGED",
            lambda: api.submit(c, target=target, target_digest=seen.target_digest, validate_only=True))
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "TARGET_CHANGED",
            lambda: api.submit(c, target=one, target_digest=seen.target_digest))
    # A repeated request is answered as the first was, whatever has changed since.
    again = api.submit(c, target=target, target_digest=seen.target_digest, request_id="frozen")
    assert again.replayed and again.batch.id == accepted.batch.id and again.target_digest == seen.target_digest
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED",
            lambda: api.submit(c, target=target, target_digest=now.target_digest, request_id="frozen"))
    for bad in ("abc", "G" * 64, seen.target_digest.upper()):
        violations, _ = refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
                                lambda bad=bad: api.submit(c, target=target, target_digest=bad))
        assert list(violations) == ["target_digest"]


# --- what devices say, and when they were seen -----------------------------------------------------------------------

def test_what_devices_say_and_when_they_come_is_found(stack):
    pb = stack.pb
    stack.start(workers=0)
    stack.start_worker("--seen-interval", "50ms")
    c = stack.client(stack.make_tenant())
    tokens = stack.make_devices(c, 3)
    ids = list(tokens)
    found = lambda text: [d.id for d in c.devices.ListDevices(pb.ListDevicesRequest(filter=text)).devices]
    assert found("last_seen within 1h") == []

    def answer(delivery):
        number = int(delivery.command_id[-8:], 16)
        return pb.Acknowledgement(command_id=delivery.command_id, outcome=pb.OUTCOME_SUCCEEDED,
                                  information=pb.DeviceInformation(os_version=f"1{number}.5", model="m"))
    devices = [stack.device(i, tokens[i], answer=answer) for i in ids[:2]]
    for d in devices:
        d.connect(stack.workers[0].address)
    until(lambda: found("last_seen within 1h") == ids[:2])
    batch = stack.submit(c, command=pb.Command(query_information=pb.QueryInformationCommand()),
                         target=pb.Target(devices=pb.DeviceIds(ids=ids[:2]))).batch
    stack.watch(c, batch.id)
    until(lambda: found("os_version exists") == ids[:2])
    assert found("os_version > 10.9 and model = m") == [ids[1]]
    assert c.devices.GetDevice(pb.GetDeviceRequest(device_id=ids[0])).device.HasField("last_seen_at")
    until(lambda: stack.sql("SELECT count(*) FROM device_news") == [(0,)])
    for d in devices:
        d.close()
    assert found("last_seen not within 1h") == [ids[2]]


def test_hours_become_days(api, tenant):
    """Hours of days that are over for two days are joined; days older than a year go."""
    now = 880000  # long after all that the leader makes days of meanwhile
    number = tenant.number + 100000
    for hour, slot in ((now, 0), (now - 47, 1), (now - 80, 2), (now - 81, 3), (now - 371 * 24, 4)):
        api.sql("SELECT see_devices(%s, ARRAY[%s], ARRAY[7], ARRAY[%s::bytea])", hour, number,
                bytes(128 if i == slot // 8 else 0 for i in range(128)) if slot % 8 == 0 else
                bytes(0x80 >> slot % 8 if i == slot // 8 else 0 for i in range(128)))
    rows = lambda: {h: b for h, b in api.sql("SELECT hour, left(slots::text, 8) FROM device_seen WHERE tenant_id = %s", number)}
    assert len(rows()) == 5
    for _ in range(2):
        api.sql("SELECT forget_seen(%s, 48, 370)", now)
        assert rows() == {now: "10000000", now - 47: "01000000", (now - 80) // 24 * 24 + 23: "00110000"}
