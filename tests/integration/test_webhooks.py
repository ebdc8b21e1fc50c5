"""Web hooks, with a real HTTPS server: signatures, failures, order, what is given up, another leader, whom they may not reach."""
import queue
import threading
import time

import grpc
import pytest
from harness.answers import refused
from harness.daemons import cli
from harness.patience import patient
from harness.receiver import Receiver
from harness.stack import READ_ONLY, Stack
from harness.until import until


def make(stack, certificates, *flags):
    stack.dispatcher_flags += ["--webhook-ca", certificates.ca, "--webhook-private", "--webhook-retry", "20ms", *flags]
    return stack.start(workers=0)


@pytest.fixture(scope="module")
def api(tmp_path_factory, postgres, module_redis, certificates, stubs):
    s = Stack(tmp_path_factory.mktemp("stack"), postgres, module_redis, certificates, stubs)
    yield make(s, certificates)
    s.stop()


@pytest.fixture
def receivers(certificates):
    made = []

    def new(answer=lambda hook: 204):
        made.append(Receiver(certificates, answer))
        return made[-1]
    yield new
    for r in made:
        r.close()


class Tenant:
    def __init__(self, api, devices=2):
        self.api, self.pb = api, api.pb
        self.tenant = api.make_tenant()
        self.client = api.client(self.tenant)
        api.import_devices(self.client, [f"w-{i}" for i in range(devices)])

    def add(self, url, **fields):
        answer = self.client.events.CreateWebhook(self.pb.CreateWebhookRequest(url=url, **fields))
        self.secret = answer.secret
        return answer.webhook.id

    def hook(self, number):
        hooks = self.client.events.ListWebhooks(self.pb.ListWebhooksRequest()).webhooks
        return next(w for w in hooks if w.id == number)

    def dead(self, number):
        return list(self.client.events.ListDeadEvents(self.pb.ListDeadEventsRequest(webhook_id=number)).events)

    def submit(self):
        return self.api.submit(self.client).batch.id

    def cancel(self, batch):
        self.client.commands.CancelBatch(self.pb.CancelBatchRequest(batch_id=batch))


def test_what_is_sent_and_how_it_is_signed(api, receivers):
    t, r = Tenant(api), receivers()
    before = t.submit()
    until(lambda: api.sql("SELECT last FROM event_head WHERE tenant_id = %s", t.tenant.number) == [(1,)])
    number = t.add(r.url("/hooks?x=1"), description="ours")
    batch = t.submit()
    t.cancel(batch)
    hooks = r.take(3)
    assert [(h.type, h.batch) for h in hooks] == [("batch.accepted", batch), ("batch.canceled", batch), ("batch.completed", batch)]
    first = hooks[0]
    assert first.path == "/hooks?x=1" and first.headers["content-type"] == "application/json"
    assert first.id == f"evt_{number}_{first.event}" and first.signed_with(t.secret) and before != batch
    assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 60
    assert first.data == {"id": str(first.event), "kind": "EVENT_KIND_BATCH_ACCEPTED", "batchId": str(batch), "deviceCount": 2,
                          "at": first.json["timestamp"], "tenant": t.tenant.name}
    assert hooks[2].data["progress"] == {"canceled": 2}
    until(lambda: t.hook(number).waiting == 0)
    w = t.hook(number)
    assert w.HasField("succeeded_at") and (w.failure, w.dead, w.description) == ("", 0, "ours")
    rotated = t.client.events.RotateWebhookSecret(t.pb.RotateWebhookSecretRequest(webhook_id=number)).secret
    t.client.events.TestWebhook(t.pb.TestWebhookRequest(webhook_id=number))
    (test,) = r.take(1)
    assert test.type == "test" and test.signed_with(rotated) and test.signed_with(t.secret) and rotated != t.secret
    t.client.events.DeleteWebhook(t.pb.DeleteWebhookRequest(webhook_id=number))
    until(lambda: api.sql("SELECT last FROM event_head WHERE tenant_id = %s", t.tenant.number)[0][0] >= test.event)
    t.submit()
    with pytest.raises(queue.Empty):
        r.got.get(timeout=1)


def test_only_what_was_asked_for_and_only_ones_own(api, receivers):
    t, other, r = Tenant(api), Tenant(api), receivers()
    number = t.add(r.url(), kinds=[t.pb.EVENT_KIND_BATCH_COMPLETED])
    second = t.add(r.url("/second"), kinds=[t.pb.EVENT_KIND_BATCH_CANCELED])
    batch, theirs = t.submit(), other.submit()
    t.cancel(batch)
    other.cancel(theirs)
    got = r.take(2)
    assert {(h.path, h.type, h.batch) for h in got} == {("/", "batch.completed", batch), ("/second", "batch.canceled", batch)}
    t.client.events.TestWebhook(t.pb.TestWebhookRequest(webhook_id=second))
    assert [(h.path, h.type) for h in r.take(1)] == [("/second", "test")]
    until(lambda: t.hook(number).waiting == 0)
    assert len(r.all) == 3


def test_what_it_did_not_ask_for_keeps_nothing_back(api, receivers):
    """Of a tenant to which much happens: thousands of events of other kinds before the one, however they lie in the log."""
    t, r = Tenant(api), receivers()
    number = t.add(r.url(), kinds=[t.pb.EVENT_KIND_BATCH_CANCELED])
    rows = 1500
    api.sql("WITH h AS (INSERT INTO event_head VALUES (%s, %s)) INSERT INTO event_log (tenant_id, last, first, at_ms, events)"
            " SELECT %s, n, n, server_ms(), ARRAY['1,' || n || ',' || server_ms() || ',{}'] FROM generate_series(1, %s) n RETURNING 1",
            t.tenant.number, rows, t.tenant.number, rows)
    batch = t.submit()
    t.cancel(batch)
    began = time.monotonic()
    hook, = r.take(1)
    assert hook.batch == batch and hook.event > rows
    assert time.monotonic() - began < 30  # four rows a look would be a minute and a half
    until(lambda: t.hook(number).waiting == 0)
    assert len(r.all) == 1


def test_again_until_it_is_taken_and_in_the_order_of_each_batch(api, receivers):
    """Half of all attempts fail in some way; what is taken of a batch is in order, each under one id."""
    seen, lock = {}, threading.Lock()

    def answer(hook):
        with lock:
            n = seen[hook.id] = seen.get(hook.id, 0) + 1
        if (hook.event + n) % 2:
            return (500, (302, {"location": r.url("/elsewhere")}), None, 404)[hook.event % 4]
        return 200

    t, r = Tenant(api), receivers(answer)
    number = t.add(r.url())
    batches = [t.submit() for _ in range(20)]
    for b in batches:
        t.cancel(b)
    until(lambda: t.hook(number).waiting == 0 and len(seen) == 60, timeout=90)
    assert {h.path for h in r.all} == {"/"}  # no redirect was followed
    assert all(h.signed_with(t.secret) for h in r.all) and len(r.all) > 60
    for b in batches:
        types = [h.type for h in r.all if h.batch == b]
        assert list(dict.fromkeys(types)) == ["batch.accepted", "batch.canceled", "batch.completed"], types
        assert types == sorted(types, key=["batch.accepted", "batch.canceled", "batch.completed"].index), types


def test_one_that_does_not_answer_keeps_nobody_back(api, receivers):
    stop = threading.Event()

    def never(_):
        stop.wait(patient(60))

    t, other = Tenant(api), Tenant(api)
    dead, well, theirs = receivers(never), receivers(), receivers()
    t.add(dead.url())
    t.add(well.url())
    other.add(theirs.url())
    batches = [t.submit() for _ in range(30)]
    assert {h.batch for h in well.take(30)} == set(batches)
    batch = other.submit()
    assert theirs.take(1)[0].batch == batch
    assert len(dead.all) <= 4  # no more than so many at a time
    stop.set()


def test_what_is_given_up_is_listed_and_replayed(stack, certificates, receivers):
    make(stack, certificates, "--webhook-lifetime", "300ms")
    t, broken = Tenant(stack), [True]
    r = receivers(lambda hook: 503 if broken[0] else 200)
    number = t.add(r.url())
    batch = t.submit()
    t.cancel(batch)
    until(lambda: len(t.dead(number)) == 3, timeout=60)
    dead = t.dead(number)
    assert [e.kind for e in dead] == [1, 6, 12] and {e.batch_id for e in dead} == {batch}
    assert all(e.failure == "status 503" and e.attempts >= 1 and e.HasField("died_at") for e in dead)
    assert t.hook(number).dead == 3 and t.hook(number).failure == "status 503"
    broken[0] = False
    r.all.clear()
    answer = t.client.events.ReplayDeadEvents(t.pb.ReplayDeadEventsRequest(webhook_id=number, event_ids=[dead[2].event_id]))
    assert answer.count == 1
    until(lambda: t.hook(number).dead == 2 and t.hook(number).waiting == 0)
    assert [h.event for h in r.all] == [dead[2].event_id]
    assert t.client.events.ReplayDeadEvents(t.pb.ReplayDeadEventsRequest(webhook_id=number)).count == 2
    until(lambda: t.hook(number).dead == 0 and t.hook(number).waiting == 0)
    assert [h.event for h in r.all][1:] == [dead[0].event_id, dead[1].event_id]
    env = stack.cli_env(t.tenant)
    assert r.url() in cli("webhook", "list", env=env, check=0).stdout
    assert "GIVEN UP" in cli("webhook", "dead", number, env=env, check=0).stdout
    assert "0 events" in cli("webhook", "replay", number, env=env, check=0).stdout
    added = cli("webhook", "add", r.url("/cli"), "--kind", "batch-accepted", "--description", "by hand", env=env, check=0).stdout
    other = added.split(":")[0].split()[-1]
    secret = added.split()[-1]
    assert "test" in cli("webhook", "test", other, env=env, check=0).stdout
    assert until(lambda: [h for h in r.all if h.path == "/cli"])[0].signed_with(secret)
    assert "whsec_" in cli("webhook", "rotate", other, env=env, check=0).stdout
    cli("webhook", "remove", other, env=env, check=0)
    assert cli("webhook", "remove", other, env=env).returncode == 3
    actions = [a for a, in stack.sql("SELECT action FROM audit WHERE action LIKE '%%webhook%%' ORDER BY id")]
    assert actions[:2] == ["create_webhook", "replay_webhook"] and actions[-1] == "delete_webhook"


def test_another_leader_sends_on(stack, certificates, receivers):
    """What was on its way when the leader was killed comes once more, under the same id; nothing is missing, nothing overtaken."""
    killed, slow = threading.Event(), threading.Event()

    def answer(hook):
        if hook.type == "batch.accepted" and not killed.is_set():
            slow.set()
            killed.wait(patient(30))
        return 200

    make(stack, certificates)
    second = stack.start_dispatcher()
    t, r = Tenant(stack), receivers(answer)
    t.client = stack.client(t.tenant, dispatcher=second)
    number = t.add(r.url())
    leader = next(d for d in stack.dispatchers if any("event=leading" in line for line in d.lines))
    if leader is second:
        t.client = stack.client(t.tenant, dispatcher=stack.dispatchers[0])
    batches = [t.submit() for _ in range(6)]
    assert slow.wait(patient(30))
    leader.kill()
    killed.set()
    for b in batches:
        t.cancel(b)
    until(lambda: t.hook(number).waiting == 0 and len({h.id for h in r.all}) == 18, timeout=60)
    assert len(r.all) > 18  # some came twice
    for b in batches:
        types = [h.type for h in r.all if h.batch == b]
        assert list(dict.fromkeys(types)) == ["batch.accepted", "batch.canceled", "batch.completed"], types


def test_removing_one_and_what_it_answers_do_not_wait_for_each_other(api):
    """Whoever writes what became of an attempt holds the web hook before what was sent to it, as whoever removes it does."""
    t = Tenant(api)
    number = t.add("https://example.com/", kinds=[t.pb.EVENT_KIND_BATCH_RELEASED])
    api.sql("INSERT INTO webhook_event (webhook_id, event_id, batch_id, text, next_ms, until_ms) VALUES (%s, 1, 0, '', %s, %s)",
            number, 1 << 60, 1 << 60)
    remover, writer = api.postgres.connect(api.database), api.postgres.connect(api.database)
    remover.autocommit = False
    remover.cursor().execute("SELECT FROM webhook WHERE id = %s FOR UPDATE", (number,))
    thread = threading.Thread(target=lambda: writer.cursor().execute(
        "SELECT webhook_answered(ARRAY[%s]::bigint[], ARRAY[1]::bigint[], ARRAY['x'], 1, 1, 1)", (number,)))
    thread.start()
    until(lambda: api.sql("SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", writer.info.backend_pid))
    cursor = remover.cursor()
    cursor.execute("SET lock_timeout = '10s'; DELETE FROM webhook_event WHERE webhook_id = %s", (number,))
    assert cursor.rowcount == 1
    remover.commit()
    thread.join()
    remover.close()
    writer.close()


def test_whom_they_do_not_reach(stack, certificates, receivers):
    stack.dispatcher_flags += ["--webhook-retry", "20ms"]
    stack.start(workers=0)
    t, r = Tenant(stack), receivers()
    inside = t.add(r.url())
    by_name = t.add(f"https://localhost:{r.port}/")
    for number in (inside, by_name):
        t.client.events.TestWebhook(t.pb.TestWebhookRequest(webhook_id=number))
        assert until(lambda number=number: t.hook(number).failure) == "its address is not public"
    assert r.all == []


def test_certificates_are_checked(stack, receivers):
    stack.dispatcher_flags += ["--webhook-private", "--webhook-retry", "20ms"]  # the authority is not the system's
    stack.start(workers=0)
    t, r = Tenant(stack), receivers()
    number = t.add(r.url())
    t.client.events.TestWebhook(t.pb.TestWebhookRequest(webhook_id=number))
    assert "certificate" in until(lambda: t.hook(number).failure)
    assert r.all == []


def test_what_is_refused(api, receivers):
    t, pb = Tenant(api), api.pb
    for url in ("http://example.com/", "https://", "ftp://example.com", "https://user:pw@example.com/", "https://example.com/#x", "",
                "https://example.com/" + "x" * 1024, "https://exämple.com/", "https://example.com/a b"):
        assert "url" in refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda url=url: t.add(url)), url
    assert list(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: t.add(
        "https://example.com/", kinds=[99], description="x" * 257))) == ["kinds[0]", "description"]
    other = Tenant(api)
    number = other.add("https://example.com/", kinds=[pb.EVENT_KIND_BATCH_RELEASED])
    missing = grpc.StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND"
    for call in (lambda: t.client.events.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=number)),
                 lambda: t.client.events.RotateWebhookSecret(pb.RotateWebhookSecretRequest(webhook_id=number)),
                 lambda: t.client.events.TestWebhook(pb.TestWebhookRequest(webhook_id=number)),
                 lambda: t.client.events.ReplayDeadEvents(pb.ReplayDeadEventsRequest(webhook_id=number))):
        refused(api, *missing, call)
    assert t.dead(number) == [] and list(t.client.events.ListWebhooks(pb.ListWebhooksRequest()).webhooks) == []
    for _ in range(16):
        t.add("https://example.com/", kinds=[pb.EVENT_KIND_BATCH_RELEASED])
    refused(api, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WEBHOOKS", lambda: t.add("https://example.com/"))
    reader = api.client(api.make_key(t.tenant.number, READ_ONLY))
    refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT",
            lambda: reader.events.ListWebhooks(pb.ListWebhooksRequest()))
