"""The audit: who did what, to how many, from where; its chain; and that what was changed afterwards is found."""
import concurrent.futures
import contextlib
import hashlib
import json
import signal
import threading
import time

import grpc
import psycopg2
import pytest
from harness.answers import refused
from harness.crowd import Crowd
from harness.daemons import cli
from harness.patience import patient
from harness.stack import OPERATOR, READ_ONLY
from harness.until import until

APPROVER = 4


class People:
    """A tenant with devices and keys of each role."""

    def __init__(self, api, devices=5):
        self.api, self.pb = api, api.pb
        self.tenant = api.make_tenant()
        self.admin = api.client(self.tenant)
        self.operator_key = api.make_key(self.tenant.number, OPERATOR)
        self.operator = api.client(self.operator_key)
        self.approver = api.client(api.make_key(self.tenant.number, APPROVER))
        self.reader_key = api.make_key(self.tenant.number, READ_ONLY)
        self.reader = api.client(self.reader_key)
        self.ids = [f"a-{i}" for i in range(devices)]
        api.import_devices(self.admin, self.ids)

    def number(self, key):
        return int(key.split("_")[1])

    def list(self, client=None, **fields):
        return list((client or self.admin).admin.ListAudit(self.pb.ListAuditRequest(**fields)).entries)

    def settled(self, action, count=1, **fields):
        """The entries of a kind, once there are `count`; newest first."""
        return until(lambda: (lambda e: e if len(e) >= count else None)(self.list(action=action, **fields)))

    def verify(self, client=None, **fields):
        return (client or self.admin).admin.VerifyAudit(self.pb.VerifyAuditRequest(**fields))


def test_who_did_what_from_where(api):
    p, pb = People(api), api.pb
    b = api.submit(p.operator, target=pb.Target(devices=pb.DeviceIds(ids=p.ids[:1])), request_id="one").batch
    all_of = api.submit(p.operator, request_id="all", target=pb.Target(
        all=True, exclude=pb.Target(devices=pb.DeviceIds(ids=p.ids[:4] + ["nobody"])))).batch
    api.submit(p.operator, request_id="all", target=pb.Target(
        all=True, exclude=pb.Target(devices=pb.DeviceIds(ids=p.ids[:4] + ["nobody"]))))  # the same: not twice
    p.operator.control.PauseBatch(pb.PauseBatchRequest(batch_id=all_of.id))
    p.operator.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=all_of.id))
    p.admin.commands.CancelBatch(pb.CancelBatchRequest(batch_id=all_of.id))
    p.admin.control.Hold(pb.HoldRequest(reason="stolen"))
    p.admin.control.Release(pb.ReleaseRequest(reason="found"))
    p.admin.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=p.ids[2]))
    api.tokens(p.operator, p.ids[:2], revoke_earlier=True)
    p.admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=p.number(p.reader_key)))

    submits = p.settled("submit_batch", 2)
    assert [e.detail for e in submits] == [str(all_of.id), str(b.id)]
    first, operator = submits[1], p.number(p.operator_key)
    assert first.key_id == operator and first.role == pb.ROLE_OPERATOR and first.address.startswith("127.0.0.1:")
    assert first.tenant == p.tenant.name and first.devices == 1 and first.outcome == "accepted"
    assert first.note == f"lock; request one; device {p.ids[0]}"
    assert submits[0].note == f"lock; request all; all devices, less devices {p.ids[0]}, {p.ids[1]}, {p.ids[2]} and 2 more"
    assert submits[0].devices == 1
    for action, detail, by in (("pause_batch", all_of.id, OPERATOR), ("resume_batch", all_of.id, OPERATOR),
                               ("cancel_batch", all_of.id, pb.ROLE_ADMIN), ("hold", "stolen", pb.ROLE_ADMIN),
                               ("release", "found", pb.ROLE_ADMIN), ("delete_device", p.ids[2], pb.ROLE_ADMIN),
                               ("import_devices", p.ids[0], pb.ROLE_ADMIN), ("issue_credentials", p.ids[0], OPERATOR),
                               ("revoke_tokens", "2 devices", OPERATOR), ("revoke_key", p.number(p.reader_key), pb.ROLE_ADMIN)):
        (entry,) = p.settled(action)
        assert (entry.detail, entry.role) == (str(detail), by), entry
        assert entry.address.startswith("127.0.0.1:"), entry
    assert p.settled("import_devices")[0].devices == 5 and p.settled("issue_credentials")[0].devices == 2
    assert [e.action for e in p.list(batch_id=all_of.id)] == ["cancel_batch", "resume_batch", "pause_batch", "submit_batch"]
    assert {e.action for e in p.list(key_id=operator)} == {"submit_batch", "pause_batch", "resume_batch", "issue_credentials",
                                                          "revoke_tokens"}
    assert p.list(since=first.at)[-1].at == first.at and first not in p.list(until=first.at)


def told(p, action, **fields):
    """The newest entry of a kind: of how many devices, how it ended, what else there is to say."""
    e = p.settled(action, **fields)[0]
    return e.devices, e.outcome, e.note


def test_of_how_many_devices_and_why(api):
    p, pb = People(api), api.pb
    batch = api.submit(p.operator, request_id="steered", steering=pb.Steering(
        waves=[pb.Wave(devices=1), pb.Wave(by_hand=True)])).batch.id
    p.operator.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch, reason="too loud"))
    p.operator.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch, reason="all is well"))
    p.operator.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
    p.operator.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(
        devices=pb.DeviceIds(ids=p.ids[1:3]))))
    p.operator.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    p.admin.control.Hold(pb.HoldRequest(reason="stolen"))
    p.admin.control.Release(pb.ReleaseRequest())
    assert told(p, "pause_batch") == (5, "", "too loud")
    assert told(p, "resume_batch") == (5, "", "all is well")
    assert told(p, "release_wave") == (5, "", "")
    assert told(p, "cancel_batch_for_some") == (2, "", "")
    assert told(p, "cancel_batch") == (5, "", "")
    assert told(p, "hold") == told(p, "release") == (5, "", "")
    p.admin.control.Hold(pb.HoldRequest(all=True, reason="drill of all"))
    p.admin.control.Release(pb.ReleaseRequest(all=True))
    (devices,), = api.sql("SELECT sum(devices) FROM tenant")
    (held,) = p.settled("hold", scope=pb.AuditScope(installation=True), key_id=p.number(p.tenant.key))
    assert (held.detail, held.devices) == ("drill of all", devices)


def test_why_a_batch_was_approved_or_rejected(api):
    p, pb = People(api), api.pb
    policy = pb.GuardPolicy(enabled=True, commands=["wipe"], devices_per_hour=1, percent_per_hour=100)
    policy.approval_lifetime.FromSeconds(60)
    p.admin.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=p.tenant.name, policy=policy))
    first, second = (api.submit(p.admin, request_id=r, command=pb.Command(wipe=pb.WipeCommand())).batch for r in "ab")
    p.approver.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=first.id, target_digest=first.approval.target_digest, command_hash=first.approval.command_hash,
        reason="lost property"))
    p.approver.commands.RejectBatch(pb.RejectBatchRequest(batch_id=second.id, reason="wrong group"))
    assert told(p, "approve_batch") == (5, "done", "lost property")
    assert told(p, "reject_batch") == (5, "done", "wrong group")


@pytest.mark.parametrize("thresholds,expected", [
    ([dict(percent=50, minimum=4, action=1)], [(6, "paused", "threshold 50 %: 4 of 4 went wrong")]),
    ([dict(percent=50, minimum=4, action=2)], [(6, "aborted", "threshold 50 %: 4 of 4 went wrong")]),
    ([dict(percent=50, minimum=2, action=2, per_platform=True)],
     [(6, "platforms_canceled",
       "threshold 50 % of PLATFORM_IOS: 2 of 2 went wrong; canceled: PLATFORM_IOS, PLATFORM_ANDROID")]),
])
def test_what_thresholds_do(api, thresholds, expected):
    p, pb, told_all = People(api, devices=1), api.pb, threading.Event()

    def outcome(_):
        told_all.wait(patient(30))
        return pb.OUTCOME_REJECTED
    with Crowd(api, p.admin, 6, outcome) as crowd:
        target = pb.Target(devices=pb.DeviceIds(ids=crowd.ids))
        batch = api.submit(p.operator, target=target, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(**t) for t in thresholds])).batch.id
        until(lambda: crowd.got() == [0, 1, 2, 3])
        # The leader sees all outcomes at once, or it would stop the platforms one after the other.
        api.dispatchers[0].signal(signal.SIGSTOP)
        told_all.set()
        until(lambda: all(any(e.is_set() for e in list(d.published.values())) for d in crowd.devices[:4]))
        api.dispatchers[0].signal(signal.SIGCONT)
        stops = p.settled("stop_batch", batch_id=batch)
        assert [(e.devices, e.outcome, e.note) for e in stops] == expected
        assert [(e.key_id, e.role, e.address, e.detail) for e in stops] == [(0, 0, "", str(batch))]


def test_one_platform_that_a_threshold_stops(api):
    p, pb = People(api, devices=1), api.pb
    with Crowd(api, p.admin, 6, lambda i: pb.OUTCOME_REJECTED if i % 2 else pb.OUTCOME_SUCCEEDED) as crowd:
        target = pb.Target(devices=pb.DeviceIds(ids=crowd.ids))
        batch = api.submit(p.operator, target=target, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(percent=50, minimum=2, action=pb.THRESHOLD_ACTION_PAUSE, per_platform=True)])).batch.id
        assert told(p, "stop_batch", batch_id=batch) == (
            3, "platforms_stopped", "threshold 50 % of PLATFORM_ANDROID: 2 of 2 went wrong; stopped: PLATFORM_ANDROID")


def refused_thrice(api, call):
    """Refuses a call for its role; how many entries there may be: one a second."""
    began = time.monotonic()
    for _ in range(3):
        refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", call)
    return 1 + int(time.monotonic() - began)


def test_who_was_refused_by_what_was_asked_for(api):
    """Roles that do for the method, but not for what it was to do."""
    p, pb = People(api), api.pb
    denied, role = grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT"
    everybody = pb.AuditScope(all=True)
    calls = {"/muster.v1.ControlService/Hold": lambda c: c.control.Hold(pb.HoldRequest(all=True)),
             "/muster.v1.ControlService/Release": lambda c: c.control.Release(pb.ReleaseRequest(tenant="another")),
             "/muster.v1.AdminService/ListAudit": lambda c: c.admin.ListAudit(pb.ListAuditRequest(scope=everybody)),
             "/muster.v1.AdminService/VerifyAudit": lambda c: c.admin.VerifyAudit(pb.VerifyAuditRequest(
                 scope=pb.AuditScope(installation=True)))}
    numbers, most = {p.number(p.reader_key): "/muster.v1.AdminService/ListAudit"}, 1
    for method, call in calls.items():
        key = api.make_key(p.tenant.number, OPERATOR)
        numbers[p.number(key)] = method
        most += refused_thrice(api, lambda client=api.client(key), call=call: call(client))
    refused(api, denied, role, lambda: p.list(p.reader))
    until(lambda: {e.key_id: e.detail for e in p.list(action="denied")} == numbers)
    entries = p.list(action="denied")
    assert {e.key_id: e.detail for e in entries} == numbers and len(entries) <= most
    assert {e.outcome for e in entries} == {role} and all(e.address for e in entries)


def test_a_tested_web_hook(api):
    p, pb = People(api), api.pb
    hook = p.admin.events.CreateWebhook(pb.CreateWebhookRequest(url="https://example.org/told")).webhook.id
    p.admin.events.TestWebhook(pb.TestWebhookRequest(webhook_id=hook))
    refused(api, grpc.StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND",
            lambda: p.admin.events.TestWebhook(pb.TestWebhookRequest(webhook_id=hook + 1000)))
    (entry,) = p.settled("test_webhook")
    assert (entry.detail, entry.note, entry.key_id) == (str(hook), "https://example.org/told", p.number(p.tenant.key))


def test_groups(api):
    p, pb = People(api), api.pb
    d = p.operator.devices
    d.CreateGroup(pb.CreateGroupRequest(name="some", device_ids=p.ids[:2]))
    d.CreateGroup(pb.CreateGroupRequest(name="ios", filter="platform = ios"))
    d.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=p.ids[2:4], remove_device_ids=p.ids[:1]))
    d.UpdateGroup(pb.UpdateGroupRequest(name="ios", filter="platform = ipados"))
    for call in (lambda: d.CreateGroup(pb.CreateGroupRequest(name="some")),
                 lambda: d.CreateGroup(pb.CreateGroupRequest(name="other", device_ids=["nobody"])),
                 lambda: d.CreateGroup(pb.CreateGroupRequest(name="ios", filter="platform = tvos")),
                 lambda: d.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["nobody"])),
                 lambda: d.UpdateGroup(pb.UpdateGroupRequest(name="some", filter="platform = tvos"))):
        with pytest.raises(grpc.RpcError):
            call()
    d.DeleteGroup(pb.DeleteGroupRequest(name="some"))
    p.settled("delete_group")
    entries = [(e.action, e.detail, e.devices, e.note) for e in reversed(p.list(key_id=p.number(p.operator_key)))]
    assert entries == [("create_group", "some", 2, ""), ("create_group", "ios", 0, "platform = ios"),
                       ("update_group", "some", 3, "2 to add, 1 to remove"), ("update_group", "ios", 0, "platform = ipados"),
                       ("delete_group", "some", 0, "")]


def test_guarded_commands_and_who_was_refused(api):
    p, pb = People(api), api.pb
    policy = pb.GuardPolicy(enabled=True, commands=["wipe"], devices_per_hour=1, percent_per_hour=100)
    policy.approval_lifetime.FromSeconds(60)
    p.admin.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=p.tenant.name, policy=policy))
    held = api.submit(p.admin, command=pb.Command(wipe=pb.WipeCommand())).batch
    a = held.approval
    refused(api, grpc.StatusCode.PERMISSION_DENIED, "SAME_KEY", lambda: p.admin.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=held.id, target_digest=a.target_digest, command_hash=a.command_hash)))
    p.approver.commands.RejectBatch(pb.RejectBatchRequest(batch_id=held.id))
    most = refused_thrice(api, lambda: api.submit(p.reader))
    (submit,), (guard,), (approve,), (reject,) = (p.settled(a) for a in ("submit_batch", "guarded_batch", "approve_batch", "reject_batch"))
    assert (submit.outcome, guard.outcome, approve.outcome, reject.outcome) == ("held", "held_for_approval", "SAME_KEY", "done")
    assert guard.address and guard.devices == approve.devices == 5 and reject.role == APPROVER
    denied = p.settled("denied")
    assert len(denied) <= most
    assert (denied[0].key_id, denied[0].detail) == (p.number(p.reader_key), "/muster.v1.CommandService/SubmitBatch")
    (policy_set,) = p.settled("set_policy")
    assert policy_set.outcome == "on" and "1 devices" in policy_set.detail


def test_whose_audit(api):
    p, other, pb = People(api), People(api), api.pb
    p.settled("import_devices")
    other.settled("import_devices")
    named = pb.AuditScope(tenant=p.tenant.name)
    denied, role = grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT"
    for client in (p.operator, p.approver, p.admin):
        assert {e.tenant for e in p.list(client)} == {p.tenant.name}
        assert p.verify(client).number > 0
    refused(api, denied, role, lambda: p.list(p.reader))
    refused(api, denied, role, lambda: p.verify(p.reader))
    for scope in (named, pb.AuditScope(all=True), pb.AuditScope(installation=True)):
        refused(api, denied, role, lambda scope=scope: p.list(other.operator, scope=scope))
    assert {e.tenant for e in p.list(other.admin, scope=named)} == {p.tenant.name}
    assert {p.tenant.name, other.tenant.name} <= {e.tenant for e in p.list(other.admin, scope=pb.AuditScope(all=True), page_size=1000)}
    p.admin.control.Hold(pb.HoldRequest(all=True, reason="drill"))
    p.admin.control.Release(pb.ReleaseRequest(all=True))
    installation = pb.AuditScope(installation=True)
    (hold,) = p.settled("hold", scope=installation, key_id=p.number(p.tenant.key))
    assert (hold.tenant, hold.detail, hold.key_id) == ("", "drill", p.number(p.tenant.key))
    assert p.verify(scope=installation).wrong == ""
    unknown = pb.AuditScope(tenant="nobody")
    assert p.list(scope=unknown) == []
    refused(api, grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND", lambda: p.verify(scope=unknown))
    assert list(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD",
                        lambda: p.verify(scope=pb.AuditScope(all=True), after=-1, expect_hash=b"x"))) == [
                            "scope.all", "after", "expect_hash"]


def test_pages(api):
    p, pb = People(api), api.pb
    for i in range(7):
        api.submit(p.operator, request_id=f"r-{i}")
    p.settled("submit_batch", 7)
    seen, token = [], ""
    while True:
        answer = p.admin.admin.ListAudit(pb.ListAuditRequest(action="submit_batch", page_size=3, page_token=token))
        seen += answer.entries
        token = answer.next_page_token
        if not token:
            break
    assert [e.note.split("; ")[1] for e in seen] == [f"request r-{i}" for i in reversed(range(7))]
    first = p.admin.admin.ListAudit(pb.ListAuditRequest(action="submit_batch", page_size=3))
    refused(api, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", lambda: p.list(page_token=first.next_page_token))


def test_pages_whatever_the_order_of_commits(api):
    """What is written first and committed last is linked last: each entry comes once all the same."""
    p, pb = People(api), api.pb
    p.settled("import_devices")
    late, early = (psycopg2.connect(api.conninfo) for _ in range(2))
    add = "SELECT audit_add(1000, %s, 0, 'odd', %s, NULL, '')"
    with contextlib.closing(late), contextlib.closing(early), late.cursor() as l, early.cursor() as e:
        l.execute(add, (p.tenant.number, "late"))
        for i in range(5):
            e.execute(add, (p.tenant.number, f"early {i}"))
        early.commit()
        p.settled("odd", 5)
        late.commit()
        p.settled("odd", 6)
    own, everybody = pb.AuditScope(tenant=p.tenant.name), pb.AuditScope(all=True)

    def pages(scope, size):
        seen, token = [], ""
        while True:
            answer = p.admin.admin.ListAudit(pb.ListAuditRequest(action="odd", scope=scope, page_size=size, page_token=token))
            seen += [e.detail for e in answer.entries if e.tenant == p.tenant.name]
            token = answer.next_page_token
            if not token:
                return seen

    early = [f"early {i}" for i in reversed(range(5))]
    for size in (1, 2, 3, 5):
        assert pages(own, size) == ["late", *early], size
        assert pages(everybody, size) == [*early, "late"], size


def canonical(number, entries):
    """What docs/audit.md says is hashed, from what the API gives."""
    out = f"{number},{entries[0].tenant_number},".encode()
    for e in sorted(entries, key=lambda e: e.place):
        devices = e.devices if e.HasField("devices") else ""
        out += f"{e.at.ToMilliseconds()},{e.key_id},{e.role},{devices},{e.action},{e.outcome},".encode()
        for text in (e.detail, e.note, e.address):
            out += f"{len(text)}:{text},".encode()
    return out


def chained(p, action, count):
    """The tenant's entries by number, once there are `count` of the kind."""
    p.settled(action, count)
    links = {}
    for e in p.list(page_size=1000):
        links.setdefault(e.number, []).append(e)
    return links


def test_the_chain_can_be_recomputed_by_anybody(api):
    p, pb = People(api), api.pb
    def submit(i):
        return api.submit(p.operator, request_id=f"grüße-{i}", target=pb.Target(
            devices=pb.DeviceIds(ids=p.ids[i % 5:i % 5 + 1]))).batch.id

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert len(set(pool.map(submit, range(100)))) == 100
    d = p.operator.devices
    d.CreateGroup(pb.CreateGroupRequest(name="empty"))
    d.CreateGroup(pb.CreateGroupRequest(name="ios", filter="platform = ios"))
    d.DeleteGroup(pb.DeleteGroupRequest(name="empty"))
    p.settled("delete_group")
    assert {e.detail: e.HasField("devices") and e.devices for e in p.list(action="create_group")} == {"empty": 0, "ios": 0}
    assert not p.list(action="delete_group")[0].HasField("devices")
    links = chained(p, "submit_batch", 100)
    assert sorted(links) == list(range(1, len(links) + 1))
    assert 5 < len(links) < 90  # many were accepted together
    before = bytes(32)
    for number in sorted(links):
        before = hashlib.sha256(before + canonical(number, links[number])).digest()
        assert {e.hash for e in links[number]} == {before}, number
        assert sorted(e.place for e in links[number]) == list(range(1, len(links[number]) + 1))
    answer = p.verify()
    assert (answer.checked, answer.number, answer.hash, answer.more, answer.broken) == (len(links), len(links), before, False, 0)
    assert p.verify(after=3).checked == len(links) - 3
    assert p.verify(expect_number=3, expect_hash=links[3][0].hash).broken == 0
    exchanged = p.verify(expect_number=3, expect_hash=bytes(32))
    assert (exchanged.broken, exchanged.wrong) == (3, "not the one noted")


def tamper(api, table, text, *args):
    """As one who owns the database might."""
    api.sql(f"ALTER TABLE {table} DISABLE TRIGGER audit_append_only")
    api.sql(text, *args)
    api.sql(f"ALTER TABLE {table} ENABLE TRIGGER audit_append_only")


def test_what_was_changed_afterwards_is_found(api):
    for table in ("audit_log", "audit_link"):
        for statement in (f"UPDATE {table} SET tenant_id = 5", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(Exception, match="only ever added to"):
                api.sql(statement)
    p = People(api)
    for i in range(9):
        api.submit(p.operator, request_id=f"r-{i}")
    count, number = len(chained(p, "submit_batch", 9)), p.tenant.number
    row = f"id = (SELECT audit_id FROM audit_link WHERE tenant_id = {number} AND n = 7)"

    def wrong():
        answer = p.verify()
        return answer.broken, answer.wrong, answer.number

    assert wrong() == (0, "", count)
    (kept,), = api.sql(f"SELECT entries FROM audit_log WHERE {row}")
    for old, new in (("accepted", "denied"), ("submit", "cancel"), (",5,", ",1,"), ("127.0", "10.0"), ("r-5", "r-6")):
        assert old in kept[0], kept
        tamper(api, "audit_log", f"UPDATE audit_log SET entries[1] = replace(entries[1], %s, %s) WHERE {row}", old, new)
        assert wrong() == (7, "changed", 6), new
        tamper(api, "audit_log", f"UPDATE audit_log SET entries = %s WHERE {row}", kept)
        assert wrong() == (0, "", count)
    tamper(api, "audit_log", f"DELETE FROM audit_log WHERE {row}")
    assert wrong() == (7, "missing", 6)
    where = f"WHERE tenant_id = {number} AND n = %s"
    tamper(api, "audit_link", f"UPDATE audit_link SET hash = sha256('x') {where}", 5)
    assert wrong() == (5, "changed", 4)
    tamper(api, "audit_link", f"DELETE FROM audit_link {where}", 4)
    assert wrong() == (4, "missing", 3)
    assert p.verify(after=4).wrong == "missing"  # also for who goes on behind it
    tamper(api, "audit_link", f"DELETE FROM audit_link WHERE tenant_id = {number} AND n > 3")
    assert wrong() == (4, "missing", 3)  # the end is known too
    api.sql("UPDATE audit_head SET n = 2 WHERE tenant_id = %s", number)
    assert wrong() == (3, "added", 2)
    done = cli("audit", "verify", env=api.cli_env(p.operator_key))
    assert done.returncode == 1 and "number 3 is broken: added" in done.stdout


def test_command_line(api):
    p = People(api)
    b = api.submit(p.operator, request_id="told").batch
    p.settled("submit_batch")
    env = api.cli_env(p.tenant)
    listed = cli("audit", "list", "--batch", b.id, env=env)
    assert listed.returncode == 0 and "submit_batch" in listed.stdout and "request told" in listed.stdout
    lines = cli("audit", "list", "--all", "--last", "1h", "--limit", 2, "--json", env=env).stdout.splitlines()
    assert len(lines) >= 1 and all("entries" in json.loads(line) for line in lines)
    p.operator.devices.CreateGroup(p.pb.CreateGroupRequest(name="ios", filter="platform = ios"))
    p.operator.devices.DeleteGroup(p.pb.DeleteGroupRequest(name="ios"))
    p.settled("delete_group")
    groups = [json.loads(line) for action in ("create_group", "delete_group")
              for line in cli("audit", "list", "--action", action, "--json", env=env).stdout.splitlines()]
    groups = [e for answer in groups for e in answer["entries"]]
    assert [(e["tenantNumber"], e.get("devices")) for e in groups] == [(p.tenant.number, 0), (p.tenant.number, None)]
    good = cli("audit", "verify", env=env)
    assert good.returncode == 0 and "all as they were written" in good.stdout
    noted = good.stdout.split("up to ")[1].strip()
    assert cli("audit", "verify", "--noted", noted, env=env).returncode == 0
    number, digits = noted.split(":")
    other = f"{number}:{'0' * len(digits)}"
    bad = cli("audit", "verify", "--noted", other, env=env)
    assert bad.returncode == 1 and "not the one noted" in bad.stdout
    everything = cli("audit", "verify", "--all", env=env)
    assert f"{p.tenant.name}: " in everything.stdout and "installation: " in everything.stdout
    assert cli("audit", "verify", "--noted", "x", env=env).returncode == 2
    assert cli("audit", "list", "--all", "--tenant", "x", env=env).returncode == 2
