"""Asking what became of a command to a whole fleet: why one is pending, progress by platform and wave, how long commands took,
all of them as CSV and JSON lines."""
import statistics
import time

from . import lists

ASKED = 200  # single commands

TABLE = [
    ("Asking about a command to {registered:,} devices", [
        ("why a command is pending: p50", "why_ms", "{:,.1f} ms", None),
        ("slowest of 200", "why_max_ms", "{:,.1f} ms", None),
        ("progress alone", "progress_ms", "{:,.1f} ms", None),
        ("by platform and wave, and how long commands took", "breakdown_ms", "{:,.1f} ms", ("max", 1000)),
        ("the same of the closed batch", "breakdown_closed_ms", "{:,.1f} ms", ("max", 1000)),
        ("dispatcher's CPU for it, a command", "breakdown_us", "{:,.3f} µs", None),
        ("export as CSV by `muster`", "control_export_csv_rows_s", "{:,.0f} rows/s", ("min", 200000)),
        ("export as JSON lines by `muster`", "control_export_json_rows_s", "{:,.0f} rows/s", ("min", 200000)),
    ]),
]


def _timed(call):
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1000, answer


def _asked(field, batch):
    """ms of GetCommand for commands of devices that are not connected."""
    pb, client, out = field.pb, field.client, []
    some = client.commands.ListCommands(pb.ListCommandsRequest(batch_id=batch, page_size=ASKED, states=[pb.COMMAND_STATE_QUEUED]))
    for c in some.commands:
        ms, answer = _timed(lambda i=c.command_id: client.commands.GetCommand(pb.GetCommandRequest(command_id=i)))
        assert answer.command.pending, answer
        out.append(ms)
    return out


def _got(field, batch, **wishes):
    """Median ms of GetBatch, and µs of the dispatcher's CPU."""
    pb, times = field.pb, []
    meter = field.installation.meter()
    for _ in range(field.rounds):
        times.append(_timed(lambda: field.client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch, **wishes)))[0])
    return statistics.median(times), meter.read()["dispatcher"] / field.rounds


def measure(field, progress):
    pb, client, out = field.pb, field.client, {}
    everything = {"by_platform": True, "by_wave": True, "latency": True}
    progress("asking about an open batch")
    batch = field.stack.submit(client, steering=pb.Steering(waves=[
        pb.Wave(percent=10), pb.Wave(percent=20, success_percent=1), pb.Wave(by_hand=True)])).batch.id
    client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
    client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
    field.stack.watch(client, batch, until=lambda b: b.progress.succeeded >= field.connected)
    asked = _asked(field, batch)
    out["why_ms"], out["why_max_ms"] = statistics.median(asked), max(asked)
    out["progress_ms"], _ = _got(field, batch)
    out["breakdown_ms"], cpu = _got(field, batch, **everything)
    out["breakdown_us"] = cpu / field.registered
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    field.stack.watch(client, batch)
    out["breakdown_closed_ms"], _ = _got(field, batch, **everything)
    for form in ("csv", "json"):
        progress(f"exporting {field.registered:,} commands: {form}")
        out.update(lists.measured(f"control_export_{form}", field.registered, field.rounds, lambda f=form: lists.export_cli(
            field.installation, field.tenant, batch, "--format", f)))
    return out
