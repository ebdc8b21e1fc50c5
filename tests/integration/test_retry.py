"""Outcomes that are tried again: what is counted, what is kept, what waits; and what is put off."""
import os
import re
import subprocess
import time

import grpc
import pytest
from harness.answers import progress
from harness.in_time import Late, in_time
from harness.patience import lasting
from harness.stubs import ROOT
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


def retry(pb, attempts=3, wait=1, factor=1, failed=True, **fields):
    r = pb.Retry(failed=failed, attempts=attempts, factor=factor, **fields)
    r.initial.FromSeconds(wait)
    return r


def command(api, client, batch):
    return api.list_commands(client, batch)[0]


class Patient:
    """Answers each delivery with the next of `outcomes`, then succeeds; keeps when each came, and what is tried again."""

    def __init__(self, pb, *outcomes):
        self.pb, self.outcomes, self.seen, self.said = pb, list(outcomes), [], {}

    def __call__(self, delivery):
        if delivery.attempt in self.said.get(delivery.command_id, {}):
            return self.said[delivery.command_id][delivery.attempt]  # it comes again where Redis was lost
        self.seen.append((time.monotonic(), delivery.attempt))
        self.retried = list(delivery.retried)
        outcome = self.outcomes.pop(0) if self.outcomes else self.pb.OUTCOME_SUCCEEDED
        answer = self.pb.Acknowledgement(command_id=delivery.command_id, outcome=outcome, code=len(self.seen),
                                         text=f"try {len(self.seen)}")
        if outcome != self.pb.OUTCOME_NOT_NOW:
            self.said.setdefault(delivery.command_id, {})[delivery.attempt] = answer
        return answer


def test_a_failure_is_tried_again_until_it_succeeds(api, client):
    pb = api.pb
    tokens = api.register(client, "a")
    answers = Patient(pb, pb.OUTCOME_FAILED, pb.OUTCOME_REJECTED, pb.OUTCOME_FAILED)
    with api.device("a", tokens["a"], answer=answers) as a:
        a.connect(api.workers[0].address)
        made = api.submit(client, retry=retry(pb, attempts=5, rejected=True)).batch
        assert made.retry.initial.seconds == 1 and made.retry.attempts == 5 and made.retry.max.seconds == 3600
        assert progress(api.watch(client, made.id)) == {"succeeded": 1}
    assert [attempt for _, attempt in answers.seen] == [1, 2, 3, 4]
    assert answers.retried == [pb.OUTCOME_FAILED, pb.OUTCOME_REJECTED]
    waits = [b - a for (a, _), (b, _) in zip(answers.seen, answers.seen[1:])]
    assert all(w >= 0.79 for w in waits), waits
    done = command(api, client, made.id)
    assert (done.attempts, done.result.outcome, done.result.attempt, done.result.text) == (
        4, pb.OUTCOME_SUCCEEDED, 4, "try 4")
    got = client.commands.GetBatch(pb.GetBatchRequest(batch_id=made.id)).batch
    assert got.retry == made.retry and not got.HasField("control")


def test_the_last_outcome_stands(api, client):
    """After as many deliveries as it may have; what is not named is not tried again."""
    pb = api.pb
    tokens = api.register(client, "a", "b")
    fails, refuses = Patient(pb, *[pb.OUTCOME_FAILED] * 9), Patient(pb, pb.OUTCOME_REJECTED)
    with api.device("a", tokens["a"], answer=fails) as a, api.device("b", tokens["b"], answer=refuses) as b:
        a.connect(api.workers[0].address)
        b.connect(api.workers[0].address)
        batch = api.submit(client, retry=retry(pb, attempts=2)).batch.id
        assert progress(api.watch(client, batch)) == {"failed": 1, "rejected": 1}
    assert [attempt for _, attempt in fails.seen] == [1, 2] and len(refuses.seen) == 1
    assert {c.device_id: c.result.text for c in api.list_commands(client, batch)} == {"a": "try 2", "b": "try 1"}


def test_what_waits_keeps_nobody_back(api, client):
    pb = api.pb
    tokens = api.register(client, "a")
    answers = Patient(pb, pb.OUTCOME_FAILED)
    with api.device("a", tokens["a"], answer=answers) as a:
        a.connect(api.workers[0].address)
        first = api.submit(client, retry=retry(pb, wait=60)).batch.id
        assert progress(api.watch(client, first, until=lambda b: b.progress.held)) == {"held": 1}
        # The last result is there while it waits, once it is durable.
        waiting = until(lambda: (c := command(api, client, first)).result.outcome and c, what="its result is there")
        assert waiting.result.outcome == pb.OUTCOME_FAILED and waiting.result.attempt == waiting.attempts == 1
        assert waiting.result.text == "try 1"
        assert progress(api.watch(client, api.submit(client).batch.id)) == {"succeeded": 1}
        # Nor does coming back bring it before its time.
        a.close()
        with api.device("a", tokens["a"], answer=answers) as again:
            again.connect(api.workers[0].address)
            assert progress(api.watch(client, api.submit(client).batch.id)) == {"succeeded": 1}
            client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first))
            assert progress(api.watch(client, first)) == {"canceled": 1}
    assert len(answers.seen) == 3


def test_what_waits_had_been_given_when_it_is_held(api, cli):
    """The kill switch counts it, and the README's way to find the devices does."""
    pb = api.pb
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    tokens = api.register(client, "waits", "silent", "offline", "puts-off", "done")
    not_now = Patient(pb, pb.OUTCOME_NOT_NOW)
    with api.device("waits", tokens["waits"], answer=Patient(pb, pb.OUTCOME_FAILED)) as waits, \
            api.device("silent", tokens["silent"]) as silent, api.device("done", tokens["done"], answer=Patient(pb)) as done, \
            api.device("puts-off", tokens["puts-off"], answer=not_now) as puts_off:
        for device in (waits, silent, done, puts_off):
            device.connect(api.workers[0].address)
        batch = api.submit(client, retry=retry(pb, wait=60)).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"held": 1, "sent": 1, "queued": 2, "succeeded": 1})
        held = client.control.Hold(pb.HoldRequest())
        assert progress(held.batches[0]) == {"held": 1, "sent": 1, "queued": 2, "succeeded": 1}
        assert held.batches[0].given == 3
        env = api.cli_env(tenant)
        assert ": 3 devices have got it; 1 SUCCEEDED, 1 SENT, 2 QUEUED, 1 HELD" in cli("hold", env=env, check=0).stdout
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
            condition = re.search(r"batch commands 1 --format csv \| awk -F, '(.*)'", readme.read()).group(1)
        rows = cli("batch", "commands", batch, "--format", "csv", env=env, check=0).stdout
        found = subprocess.run(["awk", "-F,", condition], input=rows, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert [line.split(",")[2] for line in found.splitlines()] == ["device_id", "waits", "silent", "done"]
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        client.control.Release(pb.ReleaseRequest())


def test_what_waits_when_the_batch_expires_has_failed(api, client):
    pb = api.pb
    tokens = api.register(client, "a", "b")
    at = pb.SubmitBatchRequest().expires_at
    with api.device("a", tokens["a"]) as a:
        a.connect(api.workers[0].address)

        def waits(span):
            a.answer = Patient(pb, pb.OUTCOME_FAILED)
            at.FromMilliseconds(int((time.time() + span.seconds) * 1000))
            batch = api.submit(client, retry=retry(pb, wait=60), expires_at=at).batch.id
            if not api.watch(client, batch, until=lambda b: b.progress.held or b.state == pb.BATCH_STATE_CLOSED).progress.held:
                raise Late("it expired before it was tried")
            return batch
        batch = in_time(waits, 2.5, told=True)
        assert progress(api.watch(client, batch)) == {"failed": 1, "expired": 1}


def test_no_outcome_in_time(api, client):
    """It is sent again on the same connection, and a late outcome counts."""
    pb = api.pb
    tokens = api.register(client, "a")
    steering = pb.Steering()
    steering.timeouts.execution.FromSeconds(1)
    with api.device("a", tokens["a"]) as a:
        a.connect(api.workers[0].address)
        batch = api.submit(client, retry=retry(pb, failed=False, timed_out=True, attempts=15), steering=steering).batch.id
        first, second = a.next(), a.next()  # a machine that stands still may see more
        assert (first.attempt, second.attempt) == (1, 2) and first.command_id == second.command_id
        a.wait_published(a.ack(first))
        assert progress(api.watch(client, batch)) == {"succeeded": 1}
        batch = api.submit(client, retry=retry(pb, failed=False, timed_out=True, attempts=2), steering=steering).batch.id
        assert progress(api.watch(client, batch)) == {"timed_out": 1}
        others = (d for d in iter(a.next, None) if d.command_id != first.command_id)
        assert [next(others).attempt, next(others).attempt] == [1, 2]


def test_paused_while_it_waits(api, client):
    pb = api.pb
    tokens = api.register(client, "a")
    with api.device("a", tokens["a"]) as a:
        a.connect(api.workers[0].address)

        def paused(span):
            answers = a.answer = Patient(pb, pb.OUTCOME_FAILED)
            batch = api.submit(client, retry=retry(pb, wait=span.seconds)).batch.id
            ended = lambda b: b.state == pb.BATCH_STATE_CLOSED  # noqa: E731
            if ended(api.watch(client, batch, until=lambda b: b.progress.held or ended(b))):
                raise Late("it was tried again before it was seen to wait")
            client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
            api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED or ended(b))
            if len(answers.seen) != 1:
                raise Late("it was tried again before it was paused")
            return batch, answers, span.seconds
        batch, answers, wait = in_time(paused, 2, told=True)
        time.sleep(1.25 * wait)  # it would be due
        assert len(answers.seen) == 1
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 1}
    assert [attempt for _, attempt in answers.seen] == [1, 2]


def test_what_was_superseded_is_not_tried_again(api, client):
    """Nor sent again when the device says that it cannot now."""
    pb = api.pb
    tokens = api.register(client, "a", "b")
    with api.device("a", tokens["a"]) as a, api.device("b", tokens["b"]) as b:
        a.connect(api.workers[0].address)
        b.connect(api.workers[0].address)
        first = api.submit(client, retry=retry(pb), supersede_key="k").batch.id
        deliveries = a.next(), b.next()
        second = api.submit(client, supersede_key="k").batch.id
        until(lambda: not api.sql("SELECT 1 FROM batch_control WHERE request > handled"), what="it is carried out")
        a.wait_published(a.ack(deliveries[0], pb.OUTCOME_FAILED))
        b.wait_published(b.ack(deliveries[1], pb.OUTCOME_NOT_NOW))
        assert progress(api.watch(client, first)) == {"superseded": 2}
        for d in (a, b):
            d.ack(d.next())
        assert progress(api.watch(client, second)) == {"succeeded": 2}
        assert a.deliveries.empty() and b.deliveries.empty()


def test_not_now_counts_no_attempt(make_stack):
    stack = make_stack(worker_flags=["--not-now-retry", "300ms"]).start(workers=1)
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    tokens = stack.register(client, "a")
    answers = Patient(pb, *[pb.OUTCOME_NOT_NOW] * 3, pb.OUTCOME_FAILED, pb.OUTCOME_NOT_NOW)
    with stack.device("a", tokens["a"], answer=answers) as a:
        a.connect(stack.workers[0].address)
        batch = stack.submit(client, retry=retry(pb, attempts=2)).batch.id
        assert progress(stack.watch(client, batch)) == {"succeeded": 1}
    assert [attempt for _, attempt in answers.seen] == [1, 1, 1, 1, 2, 2]
    waits = [b - a for (a, _), (b, _) in zip(answers.seen, answers.seen[1:])]
    # Not at once: but for what makes a worker attach all its devices once more, such as its own beginning.
    assert sum(w < 0.29 for w in waits) <= 2, waits
    assert command(stack, client, batch).attempts == 2


def test_what_is_put_off_comes_once_in_its_time(make_stack):
    """However much is put off, and whatever else comes meanwhile."""
    stack = make_stack(worker_flags=["--not-now-retry", "1s"]).start(workers=1)
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    tokens = stack.register(client, "a")
    seen = {}

    def put_off(delivery):
        times = seen.setdefault(delivery.command_id, [])
        times.append(time.monotonic())
        outcome = pb.OUTCOME_NOT_NOW if len(times) < 4 else pb.OUTCOME_SUCCEEDED
        return pb.Acknowledgement(command_id=delivery.command_id, outcome=outcome)
    with stack.device("a", tokens["a"], answer=put_off) as a:
        a.connect(stack.workers[0].address)
        batches = [stack.submit(client).batch.id for _ in range(8)]
        for b in batches:
            assert progress(stack.watch(client, b)) == {"succeeded": 1}
    assert all(len(times) == 4 for times in seen.values())
    assert all(times[-1] - times[0] >= 2 for times in seen.values()), seen


@pytest.mark.parametrize("what", ["leader", "worker", "redis"])
def test_whatever_is_lost_while_it_waits(make_stack, what):
    stack = make_stack(worker_flags=["--lease", lasting(1)]).start(dispatchers=2, workers=1)
    pb = stack.pb
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    ids = [f"d{i}" for i in range(5)]
    tokens = stack.register(client, *ids)
    answers = {d: Patient(pb, *[pb.OUTCOME_FAILED] * 2) for d in ids}
    devices = [stack.device(d, tokens[d], answer=answers[d]) for d in ids]
    for d in devices:
        d.connect(stack.workers[0].address)
    batch = stack.submit(client, retry=retry(pb, wait=3)).batch.id
    stack.watch(client, batch, until=lambda b: b.progress.held == 5)
    if what == "leader":
        stack.dispatchers[0].kill()
        stack.dispatchers[1].wait_event("leader_loaded")
    elif what == "redis":
        stack.redis.client().flushall()
    else:
        stack.workers[0].kill()
        for d in devices:
            d.client.loop_stop()
        stack.workers[0] = stack.start_worker()
        stack.workers.pop()
        devices = [stack.device(d, tokens[d], answer=answers[d]) for d in ids]
        for d in devices:
            d.connect(stack.workers[0].address)
    assert progress(stack.watch(client, batch)) == {"succeeded": 5}
    for d in devices:
        d.close()
    assert all([attempt for _, attempt in answers[d].seen] == [1, 2, 3] for d in ids), {d: a.seen for d, a in answers.items()}


def test_what_is_wrong_is_named(api, client):
    pb = api.pb
    api.register(client, "a")
    for wrong, field in ((pb.Retry(attempts=3), "retry"), (retry(pb, attempts=1), "retry.attempts"),
                         (retry(pb, timed_out=True), "retry.timed_out"), (retry(pb, wait=0), "retry.initial")):
        with pytest.raises(grpc.RpcError) as e:
            api.submit(client, retry=wrong)
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert list(api.stubs.details(e.value)[1]) == [field]
    api.submit(client, request_id="r", retry=retry(pb))
    assert api.submit(client, request_id="r", retry=retry(pb)).replayed
    with pytest.raises(grpc.RpcError) as e:
        api.submit(client, request_id="r", retry=retry(pb, attempts=4))
    assert e.value.code() == grpc.StatusCode.ALREADY_EXISTS


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    api.register(api.client(tenant), "a")
    env = api.cli_env(tenant)
    flags = ["batch", "submit", "--type", "lock", "--all"]
    out = cli(*flags, "--retry", "failed,timed-out", "--timeouts", "--retry-wait", "5s", env=env, check=0).stdout
    assert "retry        after FAILED TIMED_OUT, 5 deliveries, waiting 5 s, then 2 times as long, at most 3600 s" in out
    cli(*flags, "--retry", "sometimes", env=env, check=2)
    cli(*flags, "--retry-attempts", "3", env=env, check=2)
