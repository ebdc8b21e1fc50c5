"""Events of devices that come and go: told once, the last state of each, also over other leaders, workers and an emptied Redis."""
import contextlib
import json
import signal
import time

import grpc
import pytest
from harness.answers import refused
from harness.daemons import cli
from harness.patience import lasting
from harness.receiver import Receiver
from harness.stack import READ_ONLY, Stack
from harness.until import until

FLAGS = ["--presence-interval", lasting(0.5), "--webhook-private"]


@pytest.fixture(scope="module")
def api(tmp_path_factory, postgres, module_redis, certificates, stubs):
    s = Stack(tmp_path_factory.mktemp("stack"), postgres, module_redis, certificates, stubs,
              dispatcher_flags=[*FLAGS, "--webhook-ca", certificates.ca])
    yield s.start()
    s.stop()


class Tenant:
    def __init__(self, stack, devices=3):
        self.stack, self.pb = stack, stack.pb
        self.tenant = stack.make_tenant()
        self.client = stack.client(self.tenant)
        self.tokens = stack.make_devices(self.client, devices)
        self.ids = list(self.tokens)

    def want(self, enabled=True):
        self.client.events.SetDeviceEvents(self.pb.SetDeviceEventsRequest(enabled=enabled))

    def connect(self, *which, worker=0):
        return [self.stack.device(d, self.tokens[d]).connect(self.stack.workers[worker].address)
                for d in (self.ids[i] for i in which)]

    @contextlib.contextmanager
    def told(self, client=None, **fields):
        """next_one() of it is the next event as (online, ids)."""
        call = (client or self.client).events.WatchEvents(self.pb.WatchEventsRequest(**fields), timeout=120)

        class Told:
            token = next(call).resume_token

            def next_one(told):
                for m in call:
                    if m.HasField("event"):
                        e, told.token = m.event, m.resume_token
                        assert e.kind in (self.pb.EVENT_KIND_DEVICE_ONLINE, self.pb.EVENT_KIND_DEVICE_OFFLINE), e
                        assert e.device_count == len(e.device_ids) and not e.batch_id and e.at.seconds
                        return e.kind == self.pb.EVENT_KIND_DEVICE_ONLINE, list(e.device_ids)

            def until_all(told, online, ids):
                """The next events are that these came, or went, in any number of parts."""
                left = set(ids)
                while left:
                    was, some = told.next_one()
                    assert was == online and set(some) <= left, (was, some, left)
                    left -= set(some)
        try:
            yield Told()
        finally:
            call.cancel()


def test_who_comes_and_who_goes(api, certificates):
    t, other = Tenant(api), Tenant(api)
    receiver = Receiver(certificates)
    devices = t.connect(0) + other.connect(0)
    t.client.events.CreateWebhook(t.pb.CreateWebhookRequest(url=receiver.url(), kinds=[t.pb.EVENT_KIND_DEVICE_OFFLINE]))
    reader = api.client(api.make_key(t.tenant.number, READ_ONLY))
    refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT",
            lambda: reader.events.SetDeviceEvents(t.pb.SetDeviceEventsRequest(enabled=True)))
    with t.told() as told:
        assert not reader.events.GetDeviceEvents(t.pb.GetDeviceEventsRequest()).enabled
        t.want()
        t.want()
        assert reader.events.GetDeviceEvents(t.pb.GetDeviceEventsRequest()).enabled
        assert told.next_one() == (True, [t.ids[0]])
        devices += t.connect(1)
        assert told.next_one() == (True, [t.ids[1]])
        # One that is back before it is looked tells nothing.
        devices[0].close()
        devices += t.connect(0)
        devices += t.connect(2)
        assert told.next_one() == (True, [t.ids[2]])
        token = told.token
        devices[2].close()
        assert told.next_one() == (False, [t.ids[1]])
        taken, = receiver.take(1)
        assert taken.type == "device.offline" and taken.data["deviceIds"] == [t.ids[1]] and taken.data["deviceCount"] == 1
        # Off and on again: told anew from nothing.
        t.want(False)
        t.want()
        told.until_all(True, [t.ids[0], t.ids[2]])
    with t.told(resume_token=token) as again:
        assert again.next_one() == (False, [t.ids[1]])
    env = api.cli_env(t.tenant)
    assert cli("events", "devices", env=env, check=0).stdout == "on\n"
    cli("events", "devices", "off", env=env, check=0)
    assert cli("events", "devices", env=env, check=0).stdout == "off\n"
    assert cli("events", "devices", "perhaps", env=env).returncode == 2
    shown = cli("events", "watch", "--from-beginning", "--kind", "device-offline", "--count", 1, env=env, check=0).stdout
    assert shown.split()[2:] == ["DEVICE_OFFLINE", "1", "devices:", t.ids[1]], shown

    def audited():
        pages = [json.loads(line) for line in cli("audit", "list", "--json", "--action", "set_device_events", env=env,
                                                  check=0).stdout.splitlines()]
        return [e["outcome"] for page in pages for e in page.get("entries", [page])]
    until(lambda: audited() == ["off", "on", "off", "on"], what="the audit has the last of them")
    for d in devices:
        d.close()
    receiver.close()
    assert not api.sql("SELECT 1 FROM event_head WHERE tenant_id = %s", other.tenant.number)


def test_a_fleet_is_told_block_by_block(api):
    t = Tenant(api, 2500)
    t.want()
    began = time.monotonic()
    fleet = api.start_fleet(t.tokens)
    with t.told(from_beginning=True) as told:
        told.until_all(True, t.ids)
        fleet.quit()
        told.until_all(False, t.ids)
        # Three blocks, each with who has come and who has gone at most, in each look.
        assert int(told.token.split("-")[0]) <= 6 * ((time.monotonic() - began) / 0.5 + 1), told.token
    sizes, = zip(*api.sql("SELECT cardinality(events) FROM event_log WHERE tenant_id = %s", t.tenant.number))
    assert sum(sizes) == int(told.token.split("-")[0])


def test_long_rows_of_events_are_parted(api):
    """Nobody who reads a few rows at once gets megabytes."""
    t = Tenant(api, 1)
    api.sql("INSERT INTO ledger_inbox (event_tenants, events)"
            " SELECT array_agg(%s), array_agg('16,0,1,{\"reason\":\"' || repeat('x', 100000) || n || '\"}')"
            " FROM generate_series(1, 10) AS n", t.tenant.number)
    until(lambda: api.sql("SELECT 1 FROM event_head WHERE tenant_id = %s AND last = 10", t.tenant.number))
    rows = api.sql("SELECT first, last, octet_length(array_to_string(events, '')) FROM event_log WHERE tenant_id = %s ORDER BY 1",
                   t.tenant.number)
    assert [(a, b) for a, b, _ in rows] == [(1, 2), (3, 5), (6, 7), (8, 10)] and all(n < 400000 for *_, n in rows)
    call = t.client.events.WatchEvents(t.pb.WatchEventsRequest(from_beginning=True), timeout=60)
    ids = []
    while len(ids) < 10:
        m = next(call)
        if m.HasField("event"):
            ids.append(m.event.id)
    assert ids == list(range(1, 11))
    call.cancel()


def test_whatever_is_lost(make_stack):
    """A worker, a leader, what Redis holds: each change is told once, and what did not change is not."""
    stack = make_stack(dispatcher_flags=[*FLAGS, "--leader-lease", lasting(1)], worker_flags=["--lease", lasting(6)]).start(2, 2)
    t = Tenant(stack, 4)
    devices = dict(zip(t.ids, t.connect(0, 1)))
    t.want()
    standby = stack.client(t.tenant, dispatcher=stack.dispatchers[1])
    with t.told(standby, from_beginning=True) as told:
        told.until_all(True, t.ids[:2])
        # Redis is emptied: its presence is that of nobody until the worker tells it again, however many looks that takes.
        stack.workers[0].signal(signal.SIGSTOP)
        start = len(stack.dispatchers[0].lines)
        stack.redis.client().flushall()
        stack.dispatchers[0].wait_event("redis_rebuilt", start=start)
        devices[t.ids[2]], = t.connect(2, worker=1)
        assert told.next_one() == (True, [t.ids[2]])
        stack.workers[0].signal(signal.SIGCONT)
        devices[t.ids[2]].close()
        assert told.next_one() == (False, [t.ids[2]])
        # The leader goes, and a device while nobody leads.
        stack.dispatchers[0].kill()
        stack.dispatchers.pop(0)
        devices[t.ids[1]].close()
        devices[t.ids[3]], = t.connect(3, worker=1)
        told.until_all(True, t.ids[3:])
        assert told.next_one() == (False, [t.ids[1]])
        # Of a worker that is killed all devices have gone.
        stack.workers[0].kill()
        stack.workers.pop(0)
        assert told.next_one() == (False, [t.ids[0]])
    states, = stack.sql("SELECT array_agg(encode(slots, 'hex')) FROM presence_block")
    assert states[0][0].startswith("08") and len(states[0]) == 1
    for d in devices.values():
        d.close()
