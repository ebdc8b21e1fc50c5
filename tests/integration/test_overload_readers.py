"""Callers that open streams and calls, and read nothing: what is kept for them is bounded, the others are served."""
import time

import pytest
from harness.grpc_server import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, Raw, frame, message, request_fields
from harness.patience import patient
from harness.reports import memory_factor, without_quarantine
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker"), reason="not all is built")

SERVICE = "/muster.v1.CommandService/"


@pytest.fixture
def crowd(stack):
    """(stack, client, batch): 20,000 devices, a worker that answers for them once it is started."""
    stack.start(workers=0)
    plain = stack.start_dispatcher("--no-tls", env=without_quarantine())
    tenant = stack.make_tenant()
    client = stack.client(tenant)
    stack.import_devices(client, [f"device-{n:06d}" for n in range(20000)])
    yield stack, tenant, client, plain


def call(connection, tenant, method, request):
    """A call whose window stays shut; its stream."""
    stream = connection.open(request_fields(SERVICE + method, extra=[("authorization", f"Bearer {tenant.key}")]))
    connection.send(frame(DATA, END_STREAM, stream, message(request.SerializeToString())))
    return stream


def deaf(dispatcher):
    """A connection with windows of no bytes (SETTINGS_INITIAL_WINDOW_SIZE)."""
    c = Raw(dispatcher.port, preface=False)
    c.send(PREFACE + frame(SETTINGS, payload=b"\x00\x04\x00\x00\x00\x00"))
    return c


def answered(connection, count):
    """Waits until as many calls have their headers."""
    while count:
        kind, *_ = connection.read()
        count -= kind == HEADERS


def test_watchers_that_read_nothing(crowd):
    stack, tenant, client, plain = crowd
    batch = stack.submit(client).batch
    request = stack.pb.WatchBatchRequest(batch_id=batch.id, interval_ms=100)
    connections = [deaf(plain) for _ in range(4)]
    for c in connections:
        for _ in range(200):
            call(c, tenant, "WatchBatch", request)
        answered(c, 200)
    until(lambda: plain.figures()["muster_dispatcher_watchers"] == 800, what="all watch")
    before = plain.rss()
    stack.start_worker("--answer-self")
    batches = [stack.submit(client).batch.id for _ in range(20)]
    for b in [batch.id, *batches]:
        assert stack.watch(client, b, timeout=60).progress.succeeded == 20000
    assert plain.rss() - before < (16 << 20) * memory_factor()
    for c in connections:
        c.close()
    until(lambda: plain.figures()["muster_dispatcher_watchers"] == 0, what="they are forgotten")


def test_exporters_and_callers_that_read_nothing(crowd):
    stack, tenant, client, plain = crowd
    stack.start_worker("--answer-self")
    batch = stack.submit(client).batch
    stack.watch(client, batch.id, timeout=60)
    before = plain.rss()
    c = deaf(plain)
    for _ in range(16):
        call(c, tenant, "ExportCommands", stack.pb.ExportCommandsRequest(batch_id=batch.id))
    answered(c, 16)
    began, pages = time.monotonic(), deaf(plain)
    for _ in range(200):  # each answer takes about a megabyte
        call(pages, tenant, "ListCommands", stack.pb.ListCommandsRequest(batch_id=batch.id, page_size=10000))
    answered(pages, 200)
    # 16 of each: exports with 256 KiB and what they have read ahead, pages of a megabyte; and what handling 200 calls at a time
    # takes for a moment.
    assert plain.rss() - before < (96 << 20) * memory_factor()
    reader = Raw(plain.port)
    done = reader.finish(call(reader, tenant, "GetBatch", stack.pb.GetBatchRequest(batch_id=batch.id)))
    assert done[0]["grpc-status"] == "0" and time.monotonic() - began < patient(60)
    c.close()
    pages.close()
    until(lambda: plain.figures()["muster_dispatcher_calls"] == 0, what="they are forgotten")
