"""A worker alone, with stock MQTT clients; the dispatcher's part is done by hand."""
import json
import queue
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime

import paho.mqtt.client as mqtt
import pytest
from harness.daemons import program
from harness.hand_router import (FAILED, QUEUED, ROUTED, SENT, SUCCEEDED, HandRouter, command_id, now_ms,
                                 sign)
from harness.patience import lasting, patient
from harness.stack import have
from harness.until import until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

pytestmark = pytest.mark.skipif(not have("muster-worker"), reason="muster-worker is not built")

VERSIONS = [mqtt.MQTTv311, mqtt.MQTTv5]


def attached(router, seq):
    return until(lambda: router.presence(seq), what=f"presence of {seq}")


# --- the way of a command ---

@pytest.mark.parametrize("version", VERSIONS)
def test_the_outcome_is_durable_before_the_puback(router, worker, version):
    with router.device(3, protocol=version).connect(worker.address) as device:
        attached(router, 3)
        batch = router.open([3])
        router.route(batch, [3])
        delivery = device.next()
        assert delivery.command.lock.message == "locked"
        assert delivery.attempt == 1
        assert delivery.command_id == command_id(batch, router.tenant, 3)
        assert abs(delivery.expires_at.seconds - time.time() - 3600) < 60
        device.wait_published(device.ack(delivery))
        assert router.log() == {(batch, 3): SUCCEEDED | 1 << 4}
        assert router.state(batch, 3) == (SUCCEEDED, 1)


def test_each_outcome_has_its_state(router, worker):
    with router.device(0).connect(worker.address) as device:
        attached(router, 0)
        for outcome, state in ((1, SUCCEEDED), (2, FAILED), (3, FAILED + 1)):
            batch = router.open([0])
            router.route(batch, [0])
            device.wait_published(device.ack(device.next(), outcome))
            assert router.log()[batch, 0] == state | 1 << 4


def test_what_waited_comes_in_order_when_the_device_connects(router, worker):
    bulk, late = router.open([5], priority=3), router.open([5])
    urgent, later = router.open([5], priority=1), router.open([5])
    with router.device(5).connect(worker.address) as device:
        for expected in (urgent, late, later, bulk):
            delivery = device.next()
            assert delivery.command_id == command_id(expected, router.tenant, 5)
            with pytest.raises(queue.Empty):
                device.deliveries.get_nowait()  # one in flight
            device.wait_published(device.ack(delivery))


def test_a_long_backlog_is_fetched_in_parts_and_nothing_overtakes_it(router, worker):
    backlog = [router.open([5]) for _ in range(40)]
    with router.device(5).connect(worker.address) as device:
        deliveries = [device.next()]
        late, urgent = router.open([5]), router.open([5], priority=1)
        for batch in (late, urgent):
            router.route(batch, [5])
        until(lambda: router.redis.exists(*(f"{{w{router.presence(5)}}}:inbox:{c}" for c in ("normal", "urgent"))) == 0)
        for _ in range(len(backlog) + 1):
            device.ack(deliveries[-1])
            deliveries.append(device.next())
        device.wait_published(device.ack(deliveries[-1]))
    wanted = [backlog[0], urgent, *backlog[1:], late]
    assert [d.command_id for d in deliveries] == [command_id(b, router.tenant, 5) for b in wanted]
    assert [d.attempt for d in deliveries] == [1] * len(wanted)


def test_who_puts_off_all_it_was_given_is_left_in_peace_until_then(stack, router):
    worker = stack.start_worker("--not-now-retry", "6s")  # longer than a busy machine needs to be put off sixteen times
    batches = [router.open([1]) for _ in range(20)]
    wanted = [command_id(b, router.tenant, 1) for b in batches]
    began = time.monotonic()
    with router.device(1).connect(worker.address) as device:
        for batch in wanted[:16]:
            delivery = device.next()
            assert (delivery.command_id, delivery.attempt) == (batch, 1)
            device.wait_published(device.ack(delivery, 4))
        again = []
        for _ in wanted:
            again.append(device.next())
            assert time.monotonic() - began >= 6
            device.ack(again[-1])
    assert [d.command_id for d in again] == wanted
    assert [d.attempt for d in again] == [1] * 20  # what was put off is not counted


def test_more_than_one_in_flight_when_told_so(stack, router):
    worker = stack.start_worker("--in-flight", "3")
    for _ in range(5):
        router.open([5])
    with router.device(5).connect(worker.address) as device:
        first = [device.next() for _ in range(3)]
        device.wait_published(device.ack(first[1]))
        device.next()
        for delivery in (first[0], first[2]):
            device.ack(delivery)
        device.next()


def test_an_unanswered_command_is_recorded_as_sent_and_comes_again(router, worker):
    batch = router.open([2])
    device = router.device(2).connect(worker.address)
    assert device.next().attempt == 1
    until(lambda: router.state(batch, 2) == (SENT, 1))
    until(lambda: router.log().get((batch, 2)) == SENT | 1 << 4)
    device.drop()
    until(lambda: router.presence(2) == 0)
    assert router.state(batch, 2) == (SENT, 1)  # it may have been executed
    with router.device(2).connect(worker.address) as again:
        delivery = again.next()
        assert delivery.attempt == 2
        again.wait_published(again.ack(delivery))
    assert router.log()[batch, 2] == SUCCEEDED | 2 << 4


def test_attempts_count_when_the_connection_breaks_at_once(router, worker):
    batch = router.open([2])
    for attempt in (1, 2, 3):
        device = router.device(2).connect(worker.address)
        assert device.next().attempt == attempt
        device.drop()
        until(lambda n=attempt: router.state(batch, 2) == (SENT, n) and router.presence(2) == 0)


def test_what_is_sent_beyond_the_last_attempt_is_not_to_be_executed_anew(router, worker):
    batch = router.open([2], retry_after=1 << FAILED, retry_attempts=2)
    for retried in ([router.pb.OUTCOME_FAILED], [router.pb.OUTCOME_FAILED], []):
        device = router.device(2).connect(worker.address)
        assert list(device.next().retried) == retried
        device.drop()
        until(lambda: router.presence(2) == 0)


def test_not_now_comes_again_on_the_same_connection(stack, router):
    worker = stack.start_worker("--not-now-retry", "300ms")
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        device.wait_published(device.ack(device.next(), 4))
        delivery = device.next()
        assert delivery.attempt == 1  # what was put off is not counted
        device.wait_published(device.ack(delivery))
    assert router.log()[batch, 1] == SUCCEEDED | 1 << 4


def test_not_now_is_logged_of_what_is_logged_as_sent(router, worker):
    """A leader that takes over would go by that, and neither cancel it nor let it expire unsent."""
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        until(lambda: router.log().get((batch, 1)) == SENT | 1 << 4)
        device.wait_published(device.ack(delivery, outcome=4))
    assert router.log()[batch, 1] == QUEUED


def test_not_now_comes_again_when_it_was_not_waited_for_any_more(stack, router):
    worker = stack.start_worker("--not-now-retry", "300ms")
    slow, behind = router.open([1], execution_ms=200), router.open([1])
    with router.device(1).connect(worker.address) as device:
        first, second = device.next(), device.next()  # the second since the first had its time
        device.wait_published(device.ack(first, 4))
        device.wait_published(device.ack(second))
        again = device.next()
        assert again.command_id == first.command_id
        device.wait_published(device.ack(again))
    assert router.log()[slow, 1] == router.log()[behind, 1] == SUCCEEDED | 1 << 4


def test_an_acknowledgement_twice_counts_once(router, worker):
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        infos = [device.ack(delivery) for _ in range(10)]
        for info in infos:
            device.wait_published(info)
        device.wait_published(device.ack(delivery, 2))  # too late to say otherwise
        assert router.state(batch, 1) == (SUCCEEDED, 1)
        assert router.log()[batch, 1] == SUCCEEDED | 1 << 4


def test_an_acknowledgement_of_a_closed_batch_is_logged(router, worker):
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        router.redis.delete(f"{router.place(1)}:state:{batch}", f"{router.place(1)}:open")
        device.wait_published(device.ack(delivery))
        assert router.log()[batch, 1] == SUCCEEDED | 1 << 4


def test_an_acknowledgement_before_subscribing_is_taken(router, worker):
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
    until(lambda: router.state(batch, 1) == (SENT, 1) and router.presence(1) == 0)
    with router.device(1).connect(worker.address, subscribe=False) as device:
        device.wait_published(device.ack(delivery))
        assert router.state(batch, 1)[0] == SUCCEEDED
        assert router.presence(1) == 0


def test_a_hint_for_a_device_that_is_gone_is_handed_back(router, worker):
    with router.device(1).connect(worker.address):
        number = attached(router, 1)
    until(lambda: router.presence(1) == 0)
    batch = router.open([1])
    router.redis.setrange(f"{router.place(1)}:state:{batch}", 4, bytes([ROUTED]))
    router.push(number, "normal", b"\x01" + batch.to_bytes(8, "little") + router.tenant.to_bytes(4, "little") + bytes(4) +
                b"\x01\x00\x01\x00")
    until(lambda: router.state(batch, 1) == (QUEUED, 0))


def test_expired_commands_are_not_sent(router, worker):
    batch = router.open([1], expires_in_ms=-1)
    good = router.open([1])
    with router.device(1).connect(worker.address) as device:
        assert device.next().command_id == command_id(good, router.tenant, 1)
        until(lambda: router.state(batch, 1) == (QUEUED, 0))  # handed back: the leader ends it
        assert (batch, 1) not in router.log()


def test_a_cancel_hands_back_what_is_unsent_and_is_confirmed(router, worker):
    """The leader ends it."""
    sent, unsent = router.open([1]), router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        until(lambda: router.state(unsent, 1) == (ROUTED, 0))
        number = router.presence(1)
        for batch in (unsent, sent):
            router.cancel(number, batch)
            until(lambda b=batch: router.redis.smembers(f"cancel:{b}") == {str(number).encode()})
        assert router.state(unsent, 1) == (QUEUED, 0)
        assert router.state(sent, 1) == (SENT, 1)
        device.wait_published(device.ack(delivery))
        assert router.state(sent, 1) == (SUCCEEDED, 1)
        late = router.open([1])
        router.cancel(number, late)
        until(lambda: router.redis.smembers(f"cancel:{late}"))
        router.route(late, [1])
        until(lambda: router.state(late, 1) == (QUEUED, 0))


def test_results_and_information_are_stored(router, worker):
    pb = router.pb
    batch = router.open([4], command=pb.Command(query_information=pb.QueryInformationCommand()))
    with router.device(4).connect(worker.address) as device:
        delivery = device.next()
        information = pb.DeviceInformation(os_version="17.2.1", model="M", items={"battery_level": "0.81"})
        device.wait_published(device.ack(delivery, 4, text="busy"))
    with router.device(4).connect(worker.address) as device:
        device.wait_published(device.ack(device.next(), 1, information=information, code=7, text="fine", payload=b"\0\1",
                                         backup_reference="ref"))
    (stored,), = router.stack.sql("SELECT result FROM command_result WHERE batch_id = %s AND seq = 4", batch)
    result = pb.CommandResult.FromString(bytes(stored))
    assert result == pb.CommandResult(code=7, text="fine", information=information, backup_reference="ref", payload=b"\0\1")
    (stored,), = router.stack.sql("SELECT information FROM device WHERE seq = 4")
    assert pb.DeviceInformation.FromString(bytes(stored)) == information


def test_a_device_cannot_write_results_of_what_it_was_not_sent(router, worker):
    pb = router.pb
    others = router.open([1])
    (stranger,), = router.stack.sql("INSERT INTO tenant (name, created_ms) VALUES ('stranger', 0) RETURNING id")
    (foreign,), = router.stack.sql(
        "INSERT INTO batch (tenant_id, request_id, request_hash, command, priority, device_count, created_ms, expires_ms)"
        " VALUES (%s, 'x', '', '', 2, 1, 0, 9e15) RETURNING id", stranger)
    router.stack.sql("INSERT INTO batch_block VALUES (%s, 0, 0, '\\xff')", foreign)
    with router.device(2).connect(worker.address) as device:
        for batch in (others, foreign, foreign + 1000):
            device.wait_published(device.publish(pb.Acknowledgement(
                command_id=command_id(batch, router.tenant, 2), outcome=1, text="forged")))
    assert router.stack.sql("SELECT * FROM command_result") == []
    assert router.state(others, 1) == (QUEUED, 0)


def test_a_device_that_asks_for_json_gets_json(router, worker):
    batch = router.open([6], command=router.pb.Command(lock=router.pb.LockCommand(message='a "lock"', phone_number="1")),
                        retry_after=1 << FAILED + 1)
    properties = Properties(PacketTypes.CONNECT)
    properties.UserProperty = ("content-type", "application/json")
    got = queue.Queue()
    device = router.device(6, protocol=mqtt.MQTTv5)
    device.client.on_message = lambda _c, _u, m: got.put(m)
    device.client.connect_async(*worker.address.rsplit(":", 1)[:1], worker.port, properties=properties)
    device.client.loop_start()
    assert device.connected.wait(patient(20))
    device.client.subscribe(f"devices/{device.id}/commands", qos=1)
    message = got.get(timeout=patient(20))
    assert message.properties.ContentType == "application/json"
    delivery = json.loads(message.payload)
    assert delivery["command"] == {"lock": {"message": 'a "lock"', "phoneNumber": "1"}}
    assert delivery["attempt"] == 1 and delivery["commandId"] == command_id(batch, router.tenant, 6)
    assert delivery["expiresAt"].endswith("Z") and delivery["retried"] == ["OUTCOME_REJECTED"]
    ack = Properties(PacketTypes.PUBLISH)
    ack.ContentType = "application/json"
    info = device.client.publish(f"devices/{device.id}/acks", json.dumps(
        {"commandId": delivery["commandId"], "outcome": "OUTCOME_FAILED", "code": 3, "text": "no"}), qos=1, properties=ack)
    device.wait_published(info)
    device.close()
    assert router.log()[batch, 6] == FAILED | 1 << 4
    (stored,), = router.stack.sql("SELECT result FROM command_result")
    assert router.pb.CommandResult.FromString(bytes(stored)) == router.pb.CommandResult(
        code=3, text="no", outcome=2, attempt=1)


# --- what it tells ---

def admin(worker, path):
    """(status, text)"""
    try:
        with urllib.request.urlopen(f"http://{worker.admin}{path}", timeout=patient(20)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def metrics(worker):
    lines = [line.rsplit(" ", 1) for line in admin(worker, "/metrics")[1].splitlines() if not line.startswith("#")]
    return {name.removeprefix("muster_worker_"): float(value) for name, value in lines}


def test_metrics_count_what_happened(router, worker):
    assert admin(worker, "/readyz")[0] == admin(worker, "/livez")[0] == 200
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        device.wait_published(device.ack(device.next()))
        refused(router, worker, "nonsense")
        m = metrics(worker)
        assert m["sessions"] == m["connections"] == m["connected_total"] == m["refused_total"] == 1
        assert m["commands_pushed_total"] == m["commands_answered_total"] == m['events_total{event="succeed"}'] == 1
        assert m["push_ack_seconds_count"] == m["submit_push_seconds_count"] == 1
        assert m["flush_seconds_count"] == 1 + m['events_total{event="send"}']  # of a device that was slow to answer
        assert 0 < m["push_ack_seconds_sum"] < patient(20)
        assert m["redis_up"] == m["postgres_up"] == 1 and m["number"] == router.presence(1)
        assert m["held_commands"] == m["events_waiting"] == 0
    assert router.log()[batch, 1] & 15 == SUCCEEDED


def test_who_is_not_listed_any_more_is_with_the_next_renewal(router, worker):
    """What is told to all workers would not be told to it."""
    with router.device(1).connect(worker.address):
        number = attached(router, 1)
    router.redis.srem("workers", number)
    until(lambda: router.redis.sismember("workers", number))


def test_not_ready_without_redis(make_stack):
    stack = make_stack()
    HandRouter(stack)
    worker = stack.start_worker()
    stack.redis.kill()
    status, text = until(lambda: (a := admin(worker, "/readyz"))[0] != 200 and a)
    assert status == 503 and "Redis" in text
    assert admin(worker, "/livez")[0] == 200
    stack.redis.restart()
    until(lambda: admin(worker, "/readyz")[0] == 200)


@pytest.mark.parametrize("flags", [["--bogus"], ["--in-flight", "0"], ["--log-level", "loud"], ["--listen", "127.0.0.1:0"],
                                   ["--listen", ""], ["--answer-self", "--answer-share", "1"]])
def test_a_wrong_flag_is_one_line_and_exit_2(flags):
    done = subprocess.run([program("muster-worker"), *flags], capture_output=True, text=True, timeout=patient(20), check=False)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1


# --- who may connect, and what he may do ---

def refused(router, worker, token, version=mqtt.MQTTv311, device_id=None):
    """The CONNACK code of a login that must fail."""
    device = router.stack.device(device_id or router.ids[0], token, protocol=version)
    device.connect(worker.address, subscribe=False)
    device.close()
    return getattr(device.connack, "value", device.connack)


def test_bad_tokens_are_refused_with_the_reason(stack, router):
    before = now_ms()
    stack.sql("INSERT INTO revocation (tenant_id, seq, issued_before_ms) VALUES (%s, 0, %s)", router.tenant, before)
    worker = stack.start_worker()
    for version, bad, not_allowed in ((mqtt.MQTTv311, 4, 5), (mqtt.MQTTv5, 0x86, 0x87)):
        assert refused(router, worker, "nonsense", version) == bad
        assert refused(router, worker, router.token(1), version) == bad  # another device's
        assert refused(router, worker, router.token(0, secret=b"x" * 32), version) == bad
        assert refused(router, worker, router.token(0, key_id=99), version) == bad
        assert refused(router, worker, router.token(0, expires=now_ms() - 1), version) == not_allowed
        assert refused(router, worker, router.token(0, issued=before - 1), version) == not_allowed
    with router.device(0).connect(worker.address):
        pass


def test_a_key_made_later_is_found(stack, router, worker):
    (key,), = stack.sql("INSERT INTO signing_key (secret, created_ms) VALUES (%s, 0) RETURNING id", b"n" * 32)
    token = sign(router.ids[0], router.tenant, 0, key_id=key, secret=b"n" * 32)
    with stack.device(router.ids[0], token).connect(worker.address):
        pass


def test_a_revoked_device_is_thrown_out(router, worker):
    with router.device(0, protocol=mqtt.MQTTv5).connect(worker.address) as device:
        router.revoke(attached(router, 0), 0, now_ms() + 3600_000)
        assert device.gone.wait(patient(20))
        device.client.loop_stop()
        assert refused(router, worker, router.token(0)) == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_a_newer_connection_takes_the_session_over(stack, router, worker, version):
    batch = router.open([1])
    old = router.device(1, protocol=version).connect(worker.address)
    old.next()
    old.client.reconnect_delay_set(60, 60)
    new = router.device(1, protocol=version).connect(worker.address)
    assert old.gone.wait(patient(20))
    delivery = new.next()
    other = stack.start_worker()
    new.client.reconnect_delay_set(60, 60)
    newest = router.device(1, protocol=version).connect(other.address)
    assert new.gone.wait(patient(20))
    delivery = newest.next()
    assert delivery.attempt >= 2  # the worker left behind may not have recorded its own delivery yet
    newest.wait_published(newest.ack(delivery))
    assert router.log()[batch, 1] & 15 == SUCCEEDED
    for device in (old, new, newest):
        device.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_foreign_topics_are_refused(router, worker, version):
    device = router.device(1, protocol=version).connect(worker.address)
    granted = queue.Queue()
    device.client.on_subscribe = lambda _c, _u, _m, codes, *_: granted.put([getattr(c, "value", c) for c in codes])
    own, foreign = f"devices/{device.id}/commands", f"devices/{router.ids[2]}/commands"
    device.client.subscribe([(own, 1), (foreign, 1), ("#", 1), ("$share/a/b", 1)] if version == mqtt.MQTTv311 else
                            [(t, mqtt.SubscribeOptions(qos=1)) for t in (own, foreign, "#", "$share/a/b")])
    assert granted.get(timeout=patient(20)) == ([1, 0x80, 0x80, 0x80] if version == mqtt.MQTTv311 else [1, 0x87, 0xa2, 0x9e])
    device.client.reconnect_delay_set(60, 60)
    refusal = device.client.publish(f"devices/{router.ids[2]}/acks", b"x", qos=1)
    if version == mqtt.MQTTv311:
        assert device.gone.wait(patient(20))
    else:
        device.wait_published(refusal)
        assert not device.gone.is_set()
    device.close()


def test_an_outcome_of_another_devices_command_is_refused(router, worker):
    batch = router.open([1, 2])
    device = router.device(1).connect(worker.address)
    device.client.reconnect_delay_set(60, 60)
    device.publish(router.pb.Acknowledgement(command_id=command_id(batch, router.tenant, 2), outcome=1))
    assert device.gone.wait(patient(20))
    device.close()
    assert router.state(batch, 2) == (QUEUED, 0)


# --- when something goes away ---

def test_sigterm_gives_everything_back(router, worker):
    batch = router.open([1])
    device = router.device(1, protocol=mqtt.MQTTv5).connect(worker.address)
    device.client.reconnect_delay_set(60, 60)
    device.next()
    number = router.presence(1)
    worker.signal(signal.SIGTERM)
    assert device.gone.wait(patient(20))
    assert worker.wait() == 0
    assert router.presence(1) == 0
    assert router.state(batch, 1) == (SENT, 1)
    assert not router.redis.exists(f"worker:{number}")
    device.close()


def test_without_postgresql_there_is_no_puback_and_nothing_is_lost(make_stack):
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker()
    batch, after = router.open([1]), router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        stack.postgres.kill()
        info = device.ack(delivery)
        until(lambda: router.state(batch, 1) == (SUCCEEDED, 1))
        worker.wait_line(lambda line: "event=ack_flush_failed" in line)
        assert not info.is_published()
        stack.postgres.restart()
        device.wait_published(info)
        assert router.log()[batch, 1] == SUCCEEDED | 1 << 4
        device.wait_published(device.ack(device.next()))
    assert router.log()[after, 1] == SUCCEEDED | 1 << 4


def test_when_redis_comes_back_empty_the_devices_are_announced_again(make_stack):
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker()
    devices = [router.device(seq).connect(worker.address) for seq in range(3)]
    for seq in range(3):
        attached(router, seq)
    router.redis.flushall()
    for seq in range(3):
        attached(router, seq)
    batch = router.open([0, 1, 2])
    router.route(batch, [0, 1, 2])
    for device in devices:
        device.wait_published(device.ack(device.next()))
        device.close()
    assert set(router.log().values()) == {SUCCEEDED | 1 << 4}


def test_while_redis_is_away_outcomes_wait(make_stack):
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", "60s")
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        stack.redis.kill()
        info = device.ack(delivery)
        worker.wait_event("redis_lost")
        assert not info.is_published()
        stack.redis.restart()
        device.wait_published(info)
    assert router.log()[batch, 1] == SUCCEEDED | 1 << 4


def test_what_is_in_flight_is_recorded_when_redis_is_lost(make_stack):
    """Whatever becomes of the worker then: that its device has it, answered or not, only the worker knew for certain."""
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", "60s")
    first, second = router.open([1, 2]), router.open([1])
    with router.device(1).connect(worker.address) as one, router.device(2).connect(worker.address) as two:
        one.next()
        delivery = two.next()
        stack.redis.kill()
        two.ack(delivery)
        worker.wait_event("in_flight_recorded")
        until(lambda: router.log() == {(first, 1): SENT | 1 << 4, (first, 2): SENT | 1 << 4})
        worker.kill()
    assert (second, 1) not in router.log()


def test_what_redis_had_is_logged_while_it_is_away(make_stack):
    """The log, which was away before, need not wait for Redis: that one is filled from it. The device waits until both know."""
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", "60s")
    batch = router.open([1])
    with router.device(1).connect(worker.address) as device:
        delivery = device.next()
        stack.postgres.kill()
        info = device.ack(delivery)
        worker.wait_line(lambda line: "event=ack_flush_failed" in line)
        stack.redis.kill()
        worker.wait_event("redis_lost")
        stack.postgres.restart()
        until(lambda: router.log().get((batch, 1)) == SUCCEEDED | 1 << 4)
        assert not info.is_published()
        stack.redis.restart()
        device.wait_published(info)


def test_that_it_was_sent_is_logged_where_redis_has_forgotten_the_batch(make_stack):
    """Redis is filled again from what PostgreSQL knows: nobody else would say so once the device has gone."""
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", "60s")
    batch = router.open([1])
    device = router.device(1).connect(worker.address)
    device.next()
    router.redis.flushall()
    device.drop()
    until(lambda: router.log() == {(batch, 1): SENT | 1 << 4})


def test_what_has_nothing_to_store_waits_once_for_the_log(stack, router):
    """While a worker cannot open its stream of the log, an outcome waits, and a "not now" behind it, which is stored nowhere."""
    stack.sql("ALTER TABLE ack_stream RENAME TO elsewhere")
    worker = stack.start_worker()
    batch = router.open([1, 2, 3])
    with router.device(1).connect(worker.address) as first, router.device(2).connect(worker.address) as second:
        put_off = second.next()
        until(lambda: router.state(batch, 2)[0] == SENT)
        done = first.ack(first.next())
        until(lambda: router.state(batch, 1)[0] == SUCCEEDED)
        later = second.ack(put_off, outcome=4)  # NOT_NOW
        until(lambda: router.state(batch, 2)[0] == QUEUED)
        assert not done.is_published()
        stack.sql("ALTER TABLE elsewhere RENAME TO ack_stream")
        first.wait_published(done)
        second.wait_published(later)
        with router.device(3).connect(worker.address) as third:
            third.wait_published(third.ack(third.next()))


def test_what_redis_missed_is_recorded_in_order(stack, router):
    """An answer that was on its way when the connection to Redis broke comes before one that a device gives after."""
    worker = stack.start_worker("--lease", "60s")
    batch = router.open([1, 2])
    with router.device(1).connect(worker.address) as first, router.device(2).connect(worker.address) as second:
        early, late = first.next(), second.next()
        attached(router, 1), attached(router, 2)
        mine = router.redis.client_id()
        before = [c["id"] for c in router.redis.client_list() if int(c["id"]) != mine]
        seen = len(worker.events("redis_connected"))
        router.redis.client_pause(60000, all=False)
        done = first.ack(early)
        until(lambda: int(router.redis.info("clients").get("blocked_clients", 0)) > 0 or any(
            c["cmd"] == "evalsha" and int(c["qbuf"]) > 0 for c in router.redis.client_list()))
        for client in before:
            router.redis.client_kill_filter(_id=client)
        router.redis.client_unpause()
        until(lambda: len(worker.events("redis_connected")) > seen)
        second.wait_published(second.ack(late))
        first.wait_published(done)
        assert list(router.log().items()) == [((batch, 1), SUCCEEDED | 1 << 4), ((batch, 2), SUCCEEDED | 1 << 4)]


def test_nothing_is_taken_from_a_redis_of_the_past(make_stack):
    """One that has restarted is not served from until a leader has filled it."""
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", "60s")
    with router.device(1).connect(worker.address) as device:
        attached(router, 1)
        router.vouch()
        seen = len(worker.events("redis_connected"))
        stack.redis.kill()
        stack.redis.restart()
        until(lambda: len(worker.events("redis_connected")) > seen)
        batch = router.open([1, 2])
        router.route(batch, [1])
        with router.device(2).connect(worker.address) as late:
            router.redis.config_resetstat()
            until(lambda: router.redis.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"] > 5)
            assert router.presence(2) == 0 and router.state(batch, 1) == (ROUTED, 0)
            assert device.deliveries.empty() and late.deliveries.empty()
            router.vouch()
            for d in (device, late):
                d.wait_published(d.ack(d.next()))


def test_a_paused_worker_sends_nothing_under_a_lost_number(stack, router):
    worker, other = stack.start_worker("--lease", lasting(2)), stack.start_worker()
    device = router.device(1).connect(worker.address)
    device.client.reconnect_delay_set(60, 60)
    number = attached(router, 1)
    worker.signal(signal.SIGSTOP)
    until(lambda: not router.redis.exists(f"worker:{number}"))
    router.redis.set(f"worker:{number}", "another")
    batch = router.open([1])
    router.route(batch, [1])
    worker.signal(signal.SIGCONT)
    assert device.gone.wait(patient(20))
    assert device.deliveries.empty()
    worker.wait_event("worker_fenced")
    device.close()
    with router.device(1).connect(other.address) as again:
        again.wait_published(again.ack(again.next()))
    router.redis.delete(f"worker:{number}")


def test_a_worker_that_answers_itself(stack, router):
    batch = router.open([0, 1, 2])
    stack.start_worker("--answer-self")
    until(lambda: len(router.log()) == 3)
    later = router.open(list(range(16)))
    router.route(later, list(range(16)))
    until(lambda: len(router.log()) == 19)
    assert set(router.log().values()) == {SUCCEEDED | 1 << 4}
    assert router.state(batch, 1)[0] == router.state(later, 15)[0] == SUCCEEDED


def test_a_worker_that_answers_itself_stops_while_it_reads(stack):
    """Which devices there are: PostgreSQL does not tell it in time."""
    HandRouter(stack, devices=2)
    worker = stack.start_worker("--answer-self")
    locks = stack.postgres.connect(stack.database)
    locks.autocommit = False
    locks.cursor().execute("LOCK TABLE device_block IN ACCESS EXCLUSIVE MODE")
    until(lambda: stack.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%device_block%'"))
    worker.stop()
    locks.close()


def test_workers_that_answer_themselves_share_the_blocks(stack):
    router = HandRouter(stack, devices=2 * 1024)
    for share in range(2):
        stack.start_worker("--answer-self", "--answer-shares", "2", "--answer-share", share)
    assert router.presence(0) != router.presence(1024) and 0 not in (router.presence(0), router.presence(1024))


def test_many_devices_at_once(stack):
    router = HandRouter(stack, devices=60)
    workers = [stack.start_worker() for _ in range(2)]
    waiting = router.open(range(60))
    devices = []

    def answering(seq):
        device = router.device(seq)
        device.answer = lambda d: router.pb.Acknowledgement(command_id=d.command_id, outcome=1)
        devices.append(device.connect(workers[seq % 2].address))
    threads = [threading.Thread(target=answering, args=(seq,)) for seq in range(60)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    until(lambda: len(router.log()) == 60)
    batches = [router.open(range(60)) for _ in range(5)]
    for batch in batches:
        router.route(batch, range(60))
    until(lambda: len(router.log()) == 360)
    assert set(router.log().values()) == {SUCCEEDED | 1 << 4}
    assert all(router.state(b, s) == (SUCCEEDED, 1) for b in [waiting, *batches] for s in range(60))
    for device in devices:
        device.close()


def test_without_postgresql_a_worker_asks_again_at_intervals(stack, tmp_path):
    """Not as fast as it can: ten times take ten pauses of 100 ms."""
    worker = stack.start_worker("--postgres", f"host={tmp_path} dbname=none", wait=False)
    asked = until(lambda: len(e := worker.events("ack_stream_open_failed")) > 10 and e, what="eleven attempts")
    first, last = (datetime.fromisoformat(asked[i]["ts"].replace("Z", "+00:00")) for i in (0, 10))
    assert (last - first).total_seconds() > 0.9
    worker.kill()
