"""Stopping a command to a whole fleet while it is being sent: pause, cancel, cancel for some, the kill switch. Counted from the
call until no worker can send any more, as the service confirms it; and whether the devices agree with who has got it."""
import statistics
import time

TABLE = [
    ("Stopping a command to {registered:,} devices, {connected:,} of them connected over TLS", [
        ("kill switch, until confirmed: p50", "kill_ms", "{:,.0f} ms", ("max", 1000)),
        ("slowest", "kill_max_ms", "{:,.0f} ms", ("max", 1000)),
        ("who had got it: told wrongly", "kill_wrong", "{:,.0f} devices", ("max", 0)),
        ("pause, until all unsent is HELD", "pause_ms", "{:,.0f} ms", ("max", 1000)),
        ("resume, until released", "resume_ms", "{:,.0f} ms", ("max", 1000)),
        ("cancel for a tenth of them", "cancel_some_ms", "{:,.0f} ms", ("max", 2000)),
        ("cancel, until confirmed", "cancel_ms", "{:,.0f} ms", ("max", 2000)),
    ]),
]


def _until(field, batch, done):
    """ms from now until done(batch)."""
    began = time.perf_counter()
    while True:
        b = field.client.commands.GetBatch(field.pb.GetBatchRequest(batch_id=batch)).batch
        if done(b):
            return (time.perf_counter() - began) * 1000
        assert time.perf_counter() - began < 60, b
        time.sleep(0.005)


def _timed(call, *arguments):
    began = time.perf_counter()
    answer = call(*arguments)
    return (time.perf_counter() - began) * 1000, answer


def _submit(field):
    """A batch to all, being sent."""
    batch = field.stack.submit(field.client).batch.id
    _until(field, batch, lambda b: b.progress.succeeded > 0)
    return batch


def _end(field, batch):
    field.client.commands.CancelBatch(field.pb.CancelBatchRequest(batch_id=batch))
    field.stack.watch(field.client, batch)


def _kill(field):
    """(ms until confirmed, how many devices the service is wrong about, how many had got it)"""
    pb, client = field.pb, field.client
    batch = _submit(field)
    ms, answer = _timed(client.control.Hold, pb.HoldRequest(all=True))
    assert answer.hold.HasField("confirmed_at"), "the hold was not confirmed"
    told = {c.command_id for message in client.commands.ExportCommands(pb.ExportCommandsRequest(
        batch_id=batch, states=[pb.COMMAND_STATE_SENT, pb.COMMAND_STATE_SUCCEEDED]), timeout=120) for c in message.commands}
    time.sleep(0.5)  # what was on its way has arrived; nothing more may
    got = {command for (_, command), seen in field.fleet.dump().items() if seen[0]}
    now = {c for c in got if int(c[:13].replace("-", ""), 16) == batch}
    client.control.Release(pb.ReleaseRequest(all=True))
    _until(field, batch, lambda b: b.progress.succeeded >= field.connected)
    _end(field, batch)
    return ms, len(told ^ now), len(told)


def measure(field, progress):
    pb, client = field.pb, field.client
    kill, wrong, sent, pause, resume, some, cancel = [], [], [], [], [], [], []
    tenth = pb.Target(devices=pb.DeviceIds(ids=[f"device-{i:06d}" for i in range(0, field.registered, 10)]))
    _end(field, _submit(field))
    for n in range(field.rounds):
        progress(f"kill switch, round {n + 1}")
        ms, different, had = _kill(field)
        kill.append(ms)
        wrong.append(different)
        sent.append(had)
    for n in range(field.rounds):
        progress(f"pause, resume, cancel, round {n + 1}")
        batch = _submit(field)
        ms, _ = _timed(client.control.PauseBatch, pb.PauseBatchRequest(batch_id=batch))
        pause.append(ms + _until(field, batch, lambda b: b.control.state == pb.CONTROL_STATE_PAUSED))
        ms, _ = _timed(client.control.ResumeBatch, pb.ResumeBatchRequest(batch_id=batch))
        resume.append(ms + _until(field, batch, lambda b: b.control.state == pb.CONTROL_STATE_RUNNING))
        ms, _ = _timed(client.commands.CancelBatch, pb.CancelBatchRequest(batch_id=batch, target=tenth))
        some.append(ms + _until(field, batch, lambda b: b.control.state == pb.CONTROL_STATE_RUNNING))
        ms, _ = _timed(client.commands.CancelBatch, pb.CancelBatchRequest(batch_id=batch))
        cancel.append(ms + _until(field, batch, lambda b: b.HasField("canceled_at")))
        field.stack.watch(client, batch)
    return {"kill_ms": statistics.median(kill), "kill_max_ms": max(kill), "kill_wrong": max(wrong), "kill_sent": sent,
            "pause_ms": statistics.median(pause), "resume_ms": statistics.median(resume),
            "cancel_some_ms": statistics.median(some), "cancel_ms": statistics.median(cancel)}
