"""The blast radius: budgets of irreversible commands, approval by another key, cooling off, cancels that win, expiry, audit."""
import concurrent.futures
import hashlib
import time

import grpc
import pytest
from harness.answers import refusal, refused
from harness.faketime import ahead, needs_faketime
from harness.in_time import in_time
from harness.stack import ADMIN, OPERATOR, READ_ONLY
from harness.until import until

APPROVER = 4
N = 40


class Fleet:
    """A tenant with `count` registered devices and keys of each role; its policy is set from `policy`."""

    def __init__(self, api, count=N, **policy):
        self.api, self.pb = api, api.pb
        self.tenant = api.make_tenant()
        self.admin = api.client(self.tenant)
        self.operator = api.client(api.make_key(self.tenant.number, OPERATOR))
        self.approver = api.client(api.make_key(self.tenant.number, APPROVER))
        self.ids = [f"g-{i:04d}" for i in range(count)]
        api.import_devices(self.admin, self.ids)
        if policy:
            self.set_policy(**policy)

    def set_policy(self, enabled=True, commands=("wipe",), devices=10, percent=100, cooling_ms=0, delay_ms=0, approval_ms=3600000):
        pb = self.pb
        policy = pb.GuardPolicy(enabled=enabled, commands=commands, devices_per_hour=devices, percent_per_hour=percent)
        for field, ms in ((policy.cooling_off, cooling_ms), (policy.delay, delay_ms), (policy.approval_lifetime, approval_ms)):
            field.FromMilliseconds(ms)
        return self.admin.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=self.tenant.name, policy=policy)).policy

    def policy(self):
        return self.admin.admin.GetGuardPolicy(self.pb.GetGuardPolicyRequest(tenant=self.tenant.name))

    def wipe(self, first, count, client=None, **fields):
        pb = self.pb
        fields.setdefault("command", pb.Command(wipe=pb.WipeCommand()))
        return self.api.submit(client or self.operator,
                               target=pb.Target(devices=pb.DeviceIds(ids=self.ids[first:first + count])), **fields)

    def get(self, batch):
        return self.operator.commands.GetBatch(self.pb.GetBatchRequest(batch_id=batch.id)).batch

    def approve(self, batch, client=None, **fields):
        a = self.get(batch).approval
        fields = {"target_digest": a.target_digest, "command_hash": a.command_hash, **fields}
        return (client or self.approver).commands.ApproveBatch(self.pb.ApproveBatchRequest(batch_id=batch.id, **fields)).batch

    def reject(self, batch, client=None, reason=""):
        return (client or self.approver).commands.RejectBatch(
            self.pb.RejectBatchRequest(batch_id=batch.id, reason=reason)).batch

    def cancel(self, batch):
        return self.operator.commands.CancelBatch(self.pb.CancelBatchRequest(batch_id=batch.id)).batch

    def audit(self):
        return self.api.sql("SELECT action, devices, outcome FROM audit WHERE tenant_id = %s AND outcome <> ''"
                            " AND action <> 'submit_batch' ORDER BY id",
                            self.tenant.number)

    def routed(self, batch):
        (routed,), = self.api.sql("SELECT routed_ms FROM batch WHERE id = %s", batch.id)
        return routed is not None


def in_seconds(api, seconds):
    t = api.stubs.module("google.protobuf.timestamp_pb2").Timestamp()
    t.FromMilliseconds(int((time.time() + seconds) * 1000))
    return t


def is_held(api, answer, count):
    b = answer.batch
    assert b.progress.held == count == b.device_count and b.progress.queued == 0
    assert b.approval.state == api.pb.APPROVAL_STATE_PENDING and b.approval.needed
    assert b.approval.target_digest == answer.target_digest
    assert b.approval.command_hash == hashlib.sha256(b.command.SerializeToString()).hexdigest()
    return b


def test_beyond_the_budget_a_batch_is_held_and_another_key_lets_it_go(api):
    f = Fleet(api, devices=10)
    pb = api.pb
    assert f.policy().devices_left == 10
    for count in (4, 6):
        b = f.wipe(0, count).batch
        assert not b.HasField("approval") and b.progress.queued == count
    assert f.policy().devices_left == 0
    seen = f.wipe(10, 1, validate_only=True)
    assert seen.approval_needed and not f.wipe(10, 1, validate_only=True, command=pb.Command(lock=pb.LockCommand())).approval_needed
    b = is_held(api, f.wipe(10, 3), 3)
    # What is not guarded goes on behind it, and is routed; the held one is not.
    other = f.wipe(10, 3, command=pb.Command(lock=pb.LockCommand())).batch
    until(lambda: f.routed(other))
    assert not f.routed(b)
    held = f.get(b)
    assert held.progress.held == 3 and held.state == pb.BATCH_STATE_OPEN
    assert {c.state for c in api.list_commands(f.operator, b.id)} == {pb.COMMAND_STATE_HELD}
    assert api.sql("SELECT DISTINCT state FROM commands(%s)", b.id) == [("HELD",)]
    first = f.operator.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id=f.ids[10])).commands
    assert {c.batch_id: c.state for c in first}[b.id] == pb.COMMAND_STATE_HELD

    denied = grpc.StatusCode.FAILED_PRECONDITION
    refused(api, denied, "TARGET_CHANGED", lambda: f.approve(b, target_digest="0" * 64))
    refused(api, denied, "COMMAND_CHANGED", lambda: f.approve(b, command_hash="0" * 64))
    assert list(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: f.approve(
        b, target_digest="x", command_hash="", reason="x" * 257))) == ["target_digest", "command_hash", "reason"]
    approved = f.approve(b, reason="asked by phone")
    assert approved.approval.state == pb.APPROVAL_STATE_RELEASED and approved.approval.reason == "asked by phone"
    assert approved.approval.decided_by and approved.approval.decided_by != approved.approval.requested_by
    until(lambda: f.routed(b))
    assert f.get(b).progress.queued == 3
    refused(api, denied, "NOT_AWAITING_APPROVAL", lambda: f.approve(b))
    assert f.audit() == [("set_policy", None, "on"), ("guarded_batch", 4, "within_budget"), ("guarded_batch", 6, "within_budget"),
                         ("guarded_batch", 3, "held_for_approval"), ("approve_batch", 3, "TARGET_CHANGED"),
                         ("approve_batch", 3, "COMMAND_CHANGED"), ("release_batch", 3, "done"), ("approve_batch", 3, "done"),
                         ("approve_batch", 3, "NOT_AWAITING_APPROVAL")]


def test_whoever_submits_cannot_approve_and_roles_are_kept(api):
    f = Fleet(api, devices=0)
    b = is_held(api, f.wipe(0, 2, client=f.admin), 2)
    refused(api, grpc.StatusCode.PERMISSION_DENIED, "SAME_KEY", lambda: f.approve(b, client=f.admin))
    reader = api.client(api.make_key(f.tenant.number, READ_ONLY))
    for client in (f.operator, reader):
        refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", lambda c=client: f.approve(b, client=c))
        refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", lambda c=client: f.reject(b, client=c))
    for call in (lambda: f.wipe(0, 1, client=f.approver),
                 lambda: f.approver.commands.CancelBatch(api.pb.CancelBatchRequest(batch_id=b.id)),
                 lambda: f.approver.admin.GetGuardPolicy(api.pb.GetGuardPolicyRequest(tenant=f.tenant.name)),
                 lambda: f.operator.admin.SetGuardPolicy(api.pb.SetGuardPolicyRequest(tenant=f.tenant.name))):
        refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", call)
    assert f.approver.commands.GetBatch(api.pb.GetBatchRequest(batch_id=b.id)).batch.approval.state == \
        api.pb.APPROVAL_STATE_PENDING
    other = Fleet(api)
    refused(api, grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND", lambda: other.approver.commands.ApproveBatch(
        api.pb.ApproveBatchRequest(batch_id=b.id, target_digest="0" * 64, command_hash="0" * 64)))
    second = api.client(api.make_key(f.tenant.number, ADMIN))
    assert f.approve(b, client=second).approval.state == api.pb.APPROVAL_STATE_RELEASED
    until(lambda: f.routed(b))  # others count what is routed


def test_rejected_is_canceled(api):
    f = Fleet(api, devices=0)
    b = is_held(api, f.wipe(0, 5), 5)
    rejected = f.reject(b, reason="wrong store")
    assert rejected.approval.state == api.pb.APPROVAL_STATE_REJECTED and rejected.approval.reason == "wrong store"
    closed = api.watch(f.operator, b.id)
    assert closed.progress.canceled == 5 and {c.attempts for c in api.list_commands(f.operator, b.id)} == {0}
    assert f.get(b).approval.state == api.pb.APPROVAL_STATE_REJECTED
    assert api.sql("SELECT FROM guard_use WHERE tenant_id = %s", f.tenant.number) == []
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "NOT_AWAITING_APPROVAL", lambda: f.approve(b))


@pytest.mark.parametrize("how", ["pending", "cooling off", "delayed"])
def test_a_cancel_while_it_is_held_wins(api, how):
    pb = api.pb
    f = Fleet(api, devices=10 if how == "delayed" else 0, cooling_ms=3600000, delay_ms=3600000)
    device = api.device(f.ids[0], api.tokens(f.admin, f.ids[:1])[f.ids[0]])
    device.connect(api.workers[0].address)
    before = api.dispatchers[0].figures()["muster_dispatcher_routed_blocks_total"]
    b = f.wipe(0, 5).batch
    if how == "cooling off":
        b = f.approve(b)
    if how != "pending":
        assert b.approval.state == pb.APPROVAL_STATE_COOLING_OFF and b.approval.needed == (how != "delayed")
        wait = b.approval.release_at.ToMilliseconds() - time.time() * 1000
        assert 3500000 < wait <= 3600000
    canceled = f.cancel(b)
    assert canceled.approval.state == pb.APPROVAL_STATE_CANCELED
    # What was taken is not given back.
    assert api.sql("SELECT devices FROM guard_use WHERE tenant_id = %s", f.tenant.number) == ([] if how == "pending" else [(5,)])
    closed = api.watch(f.operator, b.id)
    assert closed.progress.canceled == 5 and closed.HasField("canceled_at")
    assert api.dispatchers[0].figures()["muster_dispatcher_routed_blocks_total"] == before
    assert device.deliveries.empty()
    device.close()


def test_paused_and_canceled_for_some_while_it_is_held(api):
    """Nobody can send it, so it is paused at once, and stays so when it is let go; for whom it was canceled then it ends."""
    f = Fleet(api, devices=0)
    pb = api.pb
    batch = f.wipe(0, 3).batch
    paused = f.operator.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch.id, reason="wait")).batch
    assert paused.control.state == pb.CONTROL_STATE_PAUSED and paused.control.reason == "wait"
    f.operator.commands.CancelBatch(pb.CancelBatchRequest(
        batch_id=batch.id, target=pb.Target(devices=pb.DeviceIds(ids=f.ids[:1]))))
    assert f.get(batch).control.state == pb.CONTROL_STATE_PAUSED and f.get(batch).progress.held == 3
    f.approve(batch)
    until(lambda: f.get(batch).progress.canceled == 1)
    until(lambda: f.get(batch).control.state == pb.CONTROL_STATE_PAUSED)
    assert f.get(batch).progress.held == 2
    f.operator.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch.id))
    until(lambda: f.get(batch).progress.queued == 2)
    f.cancel(batch)


def test_it_goes_when_it_has_cooled_off_and_not_before(api):
    f = Fleet(api, devices=0, cooling_ms=300)
    b = f.approve(f.wipe(0, 5).batch)
    release = b.approval.release_at.ToMilliseconds()
    assert b.approval.state == api.pb.APPROVAL_STATE_COOLING_OFF
    until(lambda: f.routed(b))
    (routed,), = api.sql("SELECT routed_ms FROM batch WHERE id = %s", b.id)
    assert routed >= release
    assert f.get(b).approval.state == api.pb.APPROVAL_STATE_RELEASED


def test_nobody_approves_in_time(api):
    f = Fleet(api, devices=0, approval_ms=1000)
    b = is_held(api, f.wipe(0, 5), 5)
    closed = api.watch(f.operator, b.id)
    assert closed.progress.canceled == 5
    assert f.get(b).approval.state == api.pb.APPROVAL_STATE_EXPIRED
    assert f.audit()[-1] == ("approval_expired", 5, "canceled")


def test_a_batch_that_expires_while_it_is_held_ends(api):
    f = Fleet(api, devices=0)

    def wipe(span):
        expires = in_seconds(api, span.seconds)
        return expires, is_held(api, f.wipe(0, 2, expires_at=expires), 2)
    expires, b = in_time(wipe, 1.2)
    assert b.approval.expires_at.ToMilliseconds() == expires.ToMilliseconds()
    closed = api.watch(f.operator, b.id)
    # Unapproved and expired at the same moment: whichever is seen first. Nothing was sent.
    assert closed.progress.canceled + closed.progress.expired == 2
    assert {c.attempts for c in api.list_commands(f.operator, b.id)} == {0}


@pytest.mark.parametrize("how", ["cooling off", "delayed"])
def test_what_ends_before_it_would_be_let_go_is_refused(api, how):
    """Whether it expires or is to be delivered by then; and takes nothing from the budget."""
    f = Fleet(api, devices=10 if how == "delayed" else 0, cooling_ms=600000, delay_ms=600000)
    pb = api.pb
    short = {"expires_at": in_seconds(api, 590)}
    timeouts = pb.Timeouts()
    timeouts.delivery.FromSeconds(590)
    late = {"steering": pb.Steering(timeouts=timeouts)}
    for fields in (short, late):
        for only in (False, True):
            e = refusal(api, grpc.StatusCode.FAILED_PRECONDITION, "EXPIRES_BEFORE_RELEASE",
                        lambda fields=fields, only=only: f.wipe(0, 5, validate_only=only, **fields))
            assert "600 seconds" in e.details()
    assert f.audit() == [("set_policy", None, "on")]
    assert api.sql("SELECT count(*) FROM batch WHERE tenant_id = %s", f.tenant.number) == [(0,)]
    # What is not guarded may be short, and what is may be long enough.
    f.wipe(0, 5, command=pb.Command(lock=pb.LockCommand()), **short)
    timeouts.delivery.FromSeconds(700)
    for fields in ({"expires_at": in_seconds(api, 700)}, {"steering": pb.Steering(timeouts=timeouts)}):
        assert f.wipe(0, 5, validate_only=True, **fields).approval_needed == (how != "delayed")
        b = f.wipe(0, 5, **fields).batch
        assert b.approval.state == (pb.APPROVAL_STATE_COOLING_OFF if how == "delayed" else pb.APPROVAL_STATE_PENDING)
    # The same request once more is what it was, however little time is left.
    def again(span):
        f = Fleet(api, devices=0, cooling_ms=span.seconds * 500)
        request = {"request_id": "once", "expires_at": in_seconds(api, span.seconds)}
        span.begin()
        b = f.wipe(0, 2, **request).batch
        time.sleep(0.6 * span.seconds)
        repeated = f.wipe(0, 2, **request).batch
        span.kept()
        assert repeated.id == b.id
    in_time(again, 2)


def test_nothing_is_approved_that_ends_before_it_has_cooled_off(api):
    f = Fleet(api, devices=0)
    b = is_held(api, f.wipe(0, 2, expires_at=in_seconds(api, 60)), 2)
    f.set_policy(devices=0, cooling_ms=60000)
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "EXPIRES_BEFORE_RELEASE", lambda: f.approve(b))
    assert f.audit()[-1] == ("approve_batch", 2, "EXPIRES_BEFORE_RELEASE")
    assert f.get(b).approval.state == api.pb.APPROVAL_STATE_PENDING and f.policy().devices_left == 0
    assert api.sql("SELECT FROM guard_use WHERE tenant_id = %s", f.tenant.number) == []
    f.set_policy(devices=0, cooling_ms=10000)
    assert f.approve(b).approval.state == api.pb.APPROVAL_STATE_COOLING_OFF


def test_what_waits_longer_than_approvals_do_keeps_nobody_waiting(api):
    """More of them than are looked at together, and then one that is due."""
    f = Fleet(api, count=101, devices=101, delay_ms=3600000, approval_ms=1000)
    other = Fleet(api, devices=0, cooling_ms=500)
    held = [f.wipe(i, 1).batch for i in range(101)]
    time.sleep(1.1)
    due = other.approve(other.wipe(0, 3).batch)
    until(lambda: other.get(due).approval.state == api.pb.APPROVAL_STATE_RELEASED)
    other.set_policy(devices=0, cooling_ms=500, approval_ms=1000)
    late = other.wipe(5, 3).batch
    until(lambda: other.get(late).approval.state == api.pb.APPROVAL_STATE_EXPIRED)
    assert {f.get(b).approval.state for b in held} == {api.pb.APPROVAL_STATE_COOLING_OFF}
    # Those that end before they are let go, of which there are none any more, end when they do.
    api.sql("UPDATE batch_approval SET ends_ms = server_ms() WHERE tenant_id = %s", f.tenant.number)
    for b in held:
        assert api.watch(f.operator, b.id).progress.canceled == 1
    assert {f.get(b).approval.state for b in held} == {api.pb.APPROVAL_STATE_EXPIRED}
    assert f.audit()[-1] == ("release_batch", 1, "canceled")


def test_two_at_once_do_not_both_take_the_budget(api):
    f = Fleet(api, devices=10)
    clients = [api.client(api.make_key(f.tenant.number, OPERATOR)) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: f.wipe(4 * i, 4, client=clients[i]).batch, range(8)))
    assert sum(not b.HasField("approval") for b in answers) == 2
    assert f.policy().devices_left == 2


def test_percent_of_the_fleet_and_single_devices(api):
    f = Fleet(api, count=30, devices=100, percent=10)
    assert f.policy().devices_left == 3
    for n in range(3):
        assert not f.wipe(n, 1).batch.HasField("approval")
    is_held(api, f.wipe(3, 1), 1)
    small = Fleet(api, count=2)  # the defaults: of two devices one an hour
    assert small.policy().devices_left == 1
    assert not small.wipe(0, 1).batch.HasField("approval")
    is_held(api, small.wipe(1, 1), 1)
    # An hour later there is room again.
    api.sql("UPDATE guard_use SET at_ms = at_ms - 3600000 WHERE tenant_id = %s", small.tenant.number)
    assert not small.wipe(1, 1).batch.HasField("approval")


def test_the_defaults_guard_what_cannot_be_undone(api):
    f = Fleet(api, count=20)
    p = f.policy().policy
    assert p.enabled and sorted(p.commands) == ["remove_application", "restore", "wipe"]
    assert (p.devices_per_hour, p.percent_per_hour) == (100, 10) and p.cooling_off.seconds == 60
    pb = api.pb
    commands = {"wipe": pb.WipeCommand(), "remove_application": pb.RemoveApplicationCommand(application_id="a"),
                "restore": pb.RestoreCommand(backup_reference="r"), "lock": pb.LockCommand(), "restart": pb.RestartCommand(),
                "lost_mode": pb.LostModeCommand(action=1, message="m")}
    held = {name for name, c in commands.items()
            if f.wipe(0, 20, command=pb.Command(**{name: c})).batch.HasField("approval")}
    assert held == {"wipe", "remove_application", "restore"}


def test_policy_off_and_other_commands(api):
    f = Fleet(api, devices=0, commands=("lock",))
    pb = api.pb
    lock = pb.Command(lock=pb.LockCommand())
    until(lambda: f.wipe(0, 1, command=lock).batch.HasField("approval"))  # within a second
    assert not f.wipe(0, 5).batch.HasField("approval")
    f.set_policy(devices=0, commands=("lost_mode",))
    lost = pb.Command(lost_mode=pb.LostModeCommand(action=pb.LOST_MODE_ACTION_DISABLE))
    until(lambda: f.wipe(0, 1, command=lost).batch.HasField("approval"))
    f.set_policy(enabled=False, commands=("wipe", "lock"), devices=0)
    assert not f.wipe(0, 5).batch.HasField("approval")
    assert ("set_policy", None, "off") in f.audit()
    until(lambda: not f.wipe(0, 1, command=lock).batch.HasField("approval"))


def test_what_comes_to_be_guarded_grows_no_more(api):
    f = Fleet(api, count=4, commands=("wipe",))
    pb = api.pb
    lock, restart = pb.Command(lock=pb.LockCommand()), pb.Command(restart=pb.RestartCommand())
    submit = lambda command, **fields: api.submit(f.operator, target=pb.Target(all=True), dynamic=True, command=command, **fields).batch.id
    locks, restarts = [submit(lock), submit(lock, supersede_key="lock")], submit(restart)
    api.import_devices(f.admin, ["early"])
    for b in (*locks, restarts):
        api.watch(f.operator, b, until=lambda b: b.device_count == 5)
    f.set_policy(commands=("wipe", "lock"))
    control = lambda b: f.operator.commands.GetBatch(pb.GetBatchRequest(batch_id=b)).batch.control
    assert all(control(b).sealed and control(b).joined == 1 for b in locks) and not control(restarts).sealed
    assert api.sql("SELECT action, detail, key_id IS NULL FROM audit WHERE tenant_id = %s AND action IN ('set_policy', 'seal_batch')"
                   " ORDER BY id OFFSET 2", f.tenant.number) == [("seal_batch", str(b), False) for b in reversed(locks)]
    api.import_devices(f.admin, ["late"])
    api.watch(f.operator, restarts, until=lambda b: b.device_count == 6)
    assert all(f.operator.commands.GetBatch(pb.GetBatchRequest(batch_id=b)).batch.device_count == 5 for b in locks)
    # A dispatcher that does not know yet what is guarded accepts one that nobody joins.
    soon = []

    def accepted():
        try:
            soon.append(submit(lock))
        except grpc.RpcError as e:
            assert api.stubs.details(e)[0] == "DYNAMIC_GUARDED"
            return False
        return True

    for _ in range(5):
        until(lambda: not accepted(), what="the dispatcher knows")
        f.set_policy(commands=("wipe",))
        until(accepted, what="the dispatcher knows")
        f.set_policy(commands=("wipe", "lock"))
        if accepted():  # else that took it a second
            break
    else:
        pytest.fail("the dispatcher always knew")
    assert all(control(b).sealed for b in soon)
    for b in (*locks, restarts, *soon):
        f.cancel(pb.Batch(id=b))
    for b in soon:
        assert api.watch(f.operator, b).progress.canceled == 6


def test_bad_policies_are_named(api):
    f = Fleet(api)
    pb = api.pb
    with_fields = lambda **fields: list(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: f.set_policy(**fields)))
    assert with_fields(commands=("wipe", "explode")) == ["policy.commands[1]"]
    assert with_fields(percent=101) == ["policy.percent_per_hour"]
    assert with_fields(cooling_ms=86400001) == ["policy.cooling_off"]
    assert with_fields(delay_ms=-1) == ["policy.delay"]
    assert with_fields(approval_ms=0) == ["policy.approval_lifetime"]
    assert with_fields(devices=1000000001) == ["policy.devices_per_hour"]
    assert list(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: f.admin.admin.SetGuardPolicy(
        pb.SetGuardPolicyRequest(tenant=f.tenant.name)))) == ["policy"]
    refused(api, grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND",
            lambda: f.admin.admin.GetGuardPolicy(pb.GetGuardPolicyRequest(tenant="nobody")))


def test_a_repeated_request_is_the_same_batch(api):
    f = Fleet(api, devices=3)
    one = f.wipe(0, 3, request_id="same")
    again = f.wipe(0, 3, request_id="same")
    assert again.replayed and again.batch.id == one.batch.id and f.policy().devices_left == 0
    held = f.wipe(5, 3, request_id="held")

    def is_the_first(answer):
        assert answer.replayed
        answer.replayed = False
        assert answer == held  # with what an approval must quote
    is_the_first(f.wipe(5, 3, request_id="held"))
    f.approve(held.batch)
    is_the_first(f.wipe(5, 3, request_id="held"))
    f.cancel(held.batch)
    is_the_first(f.wipe(5, 3, request_id="held"))


def test_a_repeated_request_is_the_same_delayed_batch(api):
    f = Fleet(api, devices=3, delay_ms=60000)
    first = f.wipe(0, 3, request_id="delayed")
    assert first.batch.approval.state == api.pb.APPROVAL_STATE_COOLING_OFF
    f.cancel(first.batch)
    again = f.wipe(0, 3, request_id="delayed")
    assert again.replayed
    again.replayed = False
    assert again == first


def test_devices_deleted_while_a_batch_is_held_get_nothing(api):
    f = Fleet(api, devices=0)
    b = f.wipe(0, 3).batch
    f.operator.devices.DeleteDevice(api.pb.DeleteDeviceRequest(device_id=f.ids[1]))
    until(lambda: api.sql("SELECT 1 FROM device_cancel WHERE tenant_id = %s", f.tenant.number) == [])
    f.approve(b)
    until(lambda: f.get(b).progress.canceled == 1)
    assert f.get(b).progress.queued == 2


def test_a_new_leader_does_not_see_it_either(make_stack):
    stack = make_stack()
    stack.start()
    f = Fleet(stack, devices=0, cooling_ms=0)
    b = f.wipe(0, 5).batch
    stack.dispatchers[0].stop()
    stack.restart(stack.dispatchers[0])
    after = stack.client(f.tenant)
    submit = lambda: stack.submit(after).batch
    other = submit()
    until(lambda: f.routed(other))
    assert not f.routed(b)
    f.operator = after
    f.approver = stack.client(stack.make_key(f.tenant.number, APPROVER))
    f.approve(b)
    until(lambda: f.routed(b))


def test_devices_get_it_only_when_it_is_let_go(api):
    f = Fleet(api, count=3, devices=0)
    pb = api.pb
    token = api.tokens(f.admin, f.ids[:1])[f.ids[0]]
    d = api.device(f.ids[0], token, answer=lambda m: pb.Acknowledgement(command_id=m.command_id, outcome=pb.OUTCOME_SUCCEEDED))
    d.connect(api.workers[0].address)
    b = f.wipe(0, 1).batch
    lock = api.submit(f.operator, target=pb.Target(devices=pb.DeviceIds(ids=f.ids[:1]))).batch
    api.watch(f.operator, lock.id)  # delivered behind the wipe, which was not
    assert d.next().command.HasField("lock")
    f.approve(b)
    assert api.watch(f.operator, b.id).progress.succeeded == 1
    assert d.next().command.HasField("wipe")
    d.close()


# --- clocks -----------------------------------------------------------------------------------------------------------

def seconds_from_now(timestamp):
    return timestamp.ToMilliseconds() / 1000 - time.time()


@needs_faketime
@pytest.mark.parametrize("hour", [3601, -3601])
def test_the_clock_of_a_dispatcher_is_off_by_an_hour(make_stack, hour):
    """Neither it nor those beside it let go, cancel or give back anything before its time, and what it does counts and waits."""
    stack = make_stack()
    pb = stack.pb
    stack.start()
    f = Fleet(stack, devices=10, cooling_ms=1800000, approval_ms=1800000)
    wrong = stack.start_dispatcher(under=ahead(hour))
    operator = stack.client(stack.make_key(f.tenant.number, OPERATOR), dispatcher=wrong)
    approver = stack.client(stack.make_key(f.tenant.number, APPROVER), dispatcher=wrong)
    looks = stack.client(stack.make_key(f.tenant.number, ADMIN), dispatcher=wrong).admin

    def left():
        return [api.GetGuardPolicy(pb.GetGuardPolicyRequest(tenant=f.tenant.name)).devices_left for api in (f.admin.admin, looks)]

    assert not f.wipe(0, 6).batch.HasField("approval") and not f.wipe(6, 3, client=operator).batch.HasField("approval")
    assert left() == [1, 1]
    waits = [f.wipe(10 + 2 * i, 2, client=c).batch for i, c in enumerate((f.operator, operator))]
    cools = [f.approve(f.wipe(20 + 2 * i, 2, client=f.operator).batch, client=c) for i, c in enumerate((f.approver, approver))]
    assert f.wipe(0, 2, client=operator, validate_only=True).approval_needed
    for b in waits:
        assert b.approval.state == pb.APPROVAL_STATE_PENDING and 1700 < seconds_from_now(b.approval.expires_at) <= 1801
    for b in cools:
        assert b.approval.state == pb.APPROVAL_STATE_COOLING_OFF and 1700 < seconds_from_now(b.approval.release_at) <= 1801
    # That time each of both looks at least twice for what is due.
    time.sleep(2.5)
    assert [f.get(b).approval.state for b in waits] == [pb.APPROVAL_STATE_PENDING] * 2
    assert [f.get(b).approval.state for b in cools] == [pb.APPROVAL_STATE_COOLING_OFF] * 2
    assert left() == [0, 0]
    # And when it is time, they go.
    stack.sql("UPDATE batch_approval SET release_ms = server_ms() WHERE batch_id = %s", cools[0].id)
    until(lambda: f.get(cools[0]).approval.state == pb.APPROVAL_STATE_RELEASED)
