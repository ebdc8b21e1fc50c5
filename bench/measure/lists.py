"""Long lists: an import, a batch to explicit ids, an export, and many watchers of one batch. What the caller's own encoding and
decoding costs is left out: requests are encoded before, answers are decoded after the clock has stopped."""
import os
import random
import resource
import statistics
import subprocess
import sys
import time

from .installation import ROOT

MUSTER = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster")

PLATFORMS = ("ios", "ipados", "macos", "tvos", "android", "windows")

# What `muster` wrote is counted in pieces of this size.
PIECE = 1 << 20

# A watcher's interval, and how many updates are measured.
WATCH_INTERVAL_MS = 500
WATCH_UPDATES = 10

WATCHERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watchers.py")
# They share one connection; the service takes 256 streams on one.
WATCHERS_A_PROCESS = 100


def same(request):
    return request


class Raw:
    """Methods of a service that take and give encoded messages."""

    def __init__(self, installation, tenant):
        s = installation.stack
        self.tenant = tenant
        self.channel = s.stubs.channel(s.dispatchers[0].address, s.certificates.ca_bytes(), tenant.key,
                                       [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])

    def method(self, kind, name):
        return getattr(self.channel, kind)(f"/muster.v1.{name}", request_serializer=same, response_deserializer=same)


def _cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


class Run:
    """`muster` from start to end: seconds and µs of CPU, its output counted in lines."""

    def __init__(self, installation, tenant, *args):
        before = _cpu_of_children()
        began = time.perf_counter()
        env = dict(os.environ, **installation.stack.cli_env(tenant))
        out = os.path.join(installation.folder, "output")
        with open(out, "wb") as f:
            done = subprocess.run([MUSTER, *args], stdout=f, stderr=subprocess.PIPE, env=env, check=False)
        self.seconds = time.perf_counter() - began
        self.us = _cpu_of_children() - before
        if done.returncode:
            raise AssertionError(f"muster {' '.join(args)} ended with {done.returncode}: {done.stderr.decode()}")
        with open(out, "rb") as f:
            self.lines = sum(piece.count(b"\n") for piece in iter(lambda: f.read(PIECE), b""))
        os.unlink(out)


def _own_us():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e6


# --- import ---

def ids_of(count):
    return [f"device-{i:07d}" for i in range(count)]


def import_file(installation, tenant, count, progress):
    """`muster device import` of a CSV file."""
    progress(f"importing {count:,} devices with the command line")
    path = os.path.join(installation.folder, "devices.csv")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"{d},{PLATFORMS[i % 6]}\n" for i, d in enumerate(ids_of(count)))
    meter = installation.meter()
    run = Run(installation, tenant, "device", "import", path)
    used = meter.read()
    (found,), = installation.query("SELECT devices FROM tenant WHERE id = %s", tenant.number)
    if found != count:
        raise AssertionError(f"{found} of {count} devices are registered")
    return {"import_cli_s": run.seconds, "import_cli_us_per_device": run.us / count,
            "import_dispatcher_us_per_device": used["dispatcher"] / count, "import_pg_us_per_device": used["pg"] / count}


def import_stream(installation, tenant, count, progress):
    """One ImportDevices stream of encoded messages."""
    progress(f"importing {count:,} devices through the API")
    pb, ids = installation.stack.pb, ids_of(count)
    messages = [pb.ImportDevicesRequest(devices=[pb.Device(id=d, platform=1 + n % 6) for n, d in enumerate(ids[i:i + 5000])]
                                        ).SerializeToString() for i in range(0, count, 5000)]
    call = Raw(installation, tenant).method("stream_unary", "DeviceService/ImportDevices")
    began = time.perf_counter()
    answer = pb.ImportDevicesResponse.FromString(call(iter(messages), timeout=600))
    seconds = time.perf_counter() - began
    if answer.created != count:
        raise AssertionError(f"{answer.created} of {count} devices were created")
    began = time.perf_counter()
    again = pb.ImportDevicesResponse.FromString(call(iter(messages), timeout=600))
    if again.updated != count:
        raise AssertionError(f"{again.updated} of {count} devices were known")
    return {"import_api_s": seconds, "import_again_s": time.perf_counter() - began}


# --- submit ---

def submit(installation, tenant, registered, count, rounds, progress):
    """SubmitBatch with `count` ids in no order. Leaves no open batch behind."""
    s, pb = installation.stack, installation.stack.pb
    # What autovacuum does within a minute of an import: look-ups then find all in the index.
    installation.query("VACUUM device")
    raw, random_ids = Raw(installation, tenant), random.Random(1)
    call = raw.method("unary_unary", "CommandService/SubmitBatch")
    ids, times, costs, batches = ids_of(registered), [], [], []
    for n in range(rounds + 1):
        progress(f"a batch to {count:,} ids, round {n} of {rounds}")
        request = pb.SubmitBatchRequest(request_id=f"ids-{n}", command=pb.Command(lock=pb.LockCommand(message="locked")),
                                        target=pb.Target(devices=pb.DeviceIds(ids=random_ids.sample(ids, count))))
        encoded = request.SerializeToString()
        meter = installation.meter()
        began = time.perf_counter()
        answer = call(encoded, timeout=60)
        ms = (time.perf_counter() - began) * 1e3
        used = meter.read()
        batch = pb.SubmitBatchResponse.FromString(answer).batch
        if batch.device_count != count:
            raise AssertionError(f"a batch to {count} ids addresses {batch.device_count} devices")
        batches.append(batch.id)
        if n:
            times.append(ms)
            costs.append(used)
        client = s.client(tenant)
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch.id))
        client.close()
        installation.wait_batches("closed_ms", batches)
    return {"submit_ids_ms": statistics.median(times), "submit_ids_ms_rounds": times,
            "submit_ids_dispatcher_ms": statistics.median(c["dispatcher"] for c in costs) / 1e3,
            "submit_ids_pg_ms": statistics.median(c["pg"] for c in costs) / 1e3}


# --- export ---

def measured(name, count, rounds, one):
    """Medians over `rounds` of one() → (rows, seconds, µs by component)."""
    rates, costs = [], []
    for n in range(rounds + 1):
        rows, seconds, used = one()
        if rows != count:
            raise AssertionError(f"{name}: {rows} of {count} rows")
        if n:
            rates.append(rows / seconds)
            costs.append(used)
    out = {f"{name}_rows_s": statistics.median(rates), f"{name}_rows_s_rounds": rates}
    for part in ("dispatcher", "pg", "client"):
        out[f"{name}_{part}_us_per_row"] = statistics.median(c[part] for c in costs) / count
    return out


def _list_pages(installation, raw, batch):
    pb, call = installation.stack.pb, raw.method("unary_unary", "CommandService/ListCommands")
    meter, own = installation.meter(), _own_us()
    began, rows, token, decoding, decoding_us = time.perf_counter(), 0, "", 0.0, 0.0
    while True:
        page = call(pb.ListCommandsRequest(batch_id=batch, page_size=10000, page_token=token).SerializeToString(), timeout=60)
        at, us = time.perf_counter(), _own_us()
        answer = pb.ListCommandsResponse.FromString(page)
        rows, token = rows + len(answer.commands), answer.next_page_token
        decoding += time.perf_counter() - at
        decoding_us += _own_us() - us
        if not token:
            break
    seconds = time.perf_counter() - began - decoding
    return rows, seconds, dict(meter.read(), client=_own_us() - own - decoding_us)


def _export_stream(installation, raw, batch):
    pb, call = installation.stack.pb, raw.method("unary_stream", "CommandService/ExportCommands")
    meter, own = installation.meter(), _own_us()
    began = time.perf_counter()
    messages = list(call(pb.ExportCommandsRequest(batch_id=batch).SerializeToString(), timeout=60))
    seconds = time.perf_counter() - began
    used = dict(meter.read(), client=_own_us() - own)
    return sum(len(pb.ExportCommandsResponse.FromString(m).commands) for m in messages), seconds, used


def export_cli(installation, tenant, batch, *flags):
    meter = installation.meter()
    run = Run(installation, tenant, "batch", "commands", str(batch), *flags)
    heading = 0 if "json" in flags else 1
    return run.lines - heading, run.seconds, dict(meter.read(), client=run.us)


def export(installation, tenant, registered, count, rounds, progress):
    """Every command of a finished batch to `count` of the devices, by each way there is."""
    s, pb = installation.stack, installation.stack.pb
    raw, client = Raw(installation, tenant), s.client(tenant, timeout=120)
    worker = s.start_worker("--answer-self")
    ids = random.Random(2).sample(ids_of(registered), count)
    batch = s.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=ids))).batch.id
    installation.wait_closed(client, batch)
    worker.stop()
    out = {}
    progress(f"listing {count:,} commands page by page")
    out.update(measured("list", count, rounds, lambda: _list_pages(installation, raw, batch)))
    progress(f"exporting {count:,} commands as a stream")
    out.update(measured("export", count, rounds, lambda: _export_stream(installation, raw, batch)))
    for form in ("table", "csv", "json"):
        progress(f"exporting {count:,} commands with the command line: {form}")
        out.update(measured(f"export_{form}", count, rounds,
                             lambda form=form: export_cli(installation, tenant, batch, "--format", form)))
    return out


# --- watch ---

class Progressing:
    """A queued batch whose state strings are changed in Redis, so that every look at it finds something new."""

    def __init__(self, installation, tenant, batch):
        self.redis = installation.redis.client()
        self.keys = sorted(self.redis.scan_iter(match=f"{{t{tenant.number}.b*}}:state:{batch}", count=10000))
        self.step = 0

    def change(self):
        """One command more is with its device."""
        key = self.keys[self.step % len(self.keys)]
        place = len(self.redis.get(key)) - 1 - self.step // len(self.keys)
        self.redis.setrange(key, place, b"\x14")  # SENT, attempt 1
        self.step += 1


class Crowd:
    """Watchers of a batch, in processes of their own."""

    def __init__(self, installation, tenant, batch, watchers):
        s = installation.stack
        request = s.pb.WatchBatchRequest(batch_id=batch, interval_ms=WATCH_INTERVAL_MS).SerializeToString().hex()
        self.processes = []
        for at in range(0, watchers, WATCHERS_A_PROCESS):
            args = [s.dispatchers[0].address, s.certificates.ca, tenant.key, str(min(WATCHERS_A_PROCESS, watchers - at)), request]
            self.processes.append(subprocess.Popen([sys.executable, WATCHERS, *args], stdin=subprocess.PIPE,
                                                   stdout=subprocess.PIPE, text=True))

    def __enter__(self):
        for p in self.processes:
            if p.stdout.readline() != "ready\n":
                raise AssertionError("watchers ended before they had seen anything")
        return self

    def seen(self):
        for p in self.processes:
            p.stdin.write("\n")
            p.stdin.flush()
        return sum(int(p.stdout.readline()) for p in self.processes)

    def __exit__(self, *_):
        for p in self.processes:
            p.stdin.close()
        for p in self.processes:
            p.wait()
            p.stdout.close()


def _updates(installation, progressing):
    """CPU µs of the dispatcher for WATCH_UPDATES updates."""
    meter = installation.meter()
    for _ in range(WATCH_UPDATES):
        progressing.change()
        time.sleep(WATCH_INTERVAL_MS / 1e3)
    return meter.read()["dispatcher"]


def watch(installation, tenant, count, crowds, progress):
    """CPU of the dispatcher per update of one queued batch to `count` devices, by number of watchers; what the dispatcher does
    without watchers is taken off."""
    s = installation.stack
    client = s.client(tenant, timeout=120)
    ids = ids_of(count)
    batch = s.submit(client, target=s.pb.Target(devices=s.pb.DeviceIds(ids=ids))).batch.id
    installation.wait_batches("routed_ms", [batch])
    progressing = Progressing(installation, tenant, batch)
    meter = installation.meter()
    time.sleep(WATCH_UPDATES * WATCH_INTERVAL_MS / 1e3)
    idle = meter.read()["dispatcher"]
    out = {"watch_idle_us_per_update": idle / WATCH_UPDATES}
    for watchers in crowds:
        progress(f"{watchers} watchers of one batch to {count:,} devices")
        with Crowd(installation, tenant, batch, watchers) as crowd:
            time.sleep(2 * WATCH_INTERVAL_MS / 1e3)  # what came at once is through
            before = crowd.seen()
            used = _updates(installation, progressing)
            received = crowd.seen() - before
        wanted = watchers * WATCH_UPDATES
        if not 0.7 * wanted <= received <= 1.5 * wanted:
            raise AssertionError(f"{watchers} watchers got {received} messages of about {wanted}")
        out[f"watch_{watchers}_ms_per_update"] = (used - idle) / WATCH_UPDATES / 1e3
        out[f"watch_{watchers}_messages"] = received
    few, many = out[f"watch_{crowds[0]}_ms_per_update"], out[f"watch_{crowds[-1]}_ms_per_update"]
    out["watch_us_per_message"] = (many - few) * 1e3 / (crowds[-1] - crowds[0])
    return out


TABLE = [
    ("Import, {registered:,} devices", [
        ("muster device import", "import_cli_s", "{:,.2f} s", ("max", 15)),
        ("ImportDevices", "import_api_s", "{:,.2f} s", ("max", 15)),
        ("the same again, all known", "import_again_s", "{:,.2f} s", ("max", 15)),
        ("CPU per device: PostgreSQL", "import_pg_us_per_device", "{:,.2f} µs", None),
        ("dispatcher", "import_dispatcher_us_per_device", "{:,.2f} µs", None),
        ("muster", "import_cli_us_per_device", "{:,.2f} µs", None),
    ]),
    ("SubmitBatch with {count:,} ids of {registered:,}", [
        ("answered, durable", "submit_ids_ms", "{:,.0f} ms", ("max", 400)),
        ("CPU: dispatcher", "submit_ids_dispatcher_ms", "{:,.0f} ms", None),
        ("CPU: PostgreSQL", "submit_ids_pg_ms", "{:,.0f} ms", None),
    ]),
    *[(title, [
        ("rows", f"{name}_rows_s", "{:,.0f} /s", ("min", 200000)),
        ("CPU per row: dispatcher", f"{name}_dispatcher_us_per_row", "{:,.2f} µs", None),
        ("PostgreSQL", f"{name}_pg_us_per_row", "{:,.2f} µs", None),
        ("client", f"{name}_client_us_per_row", "{:,.2f} µs", None),
    ]) for title, name in (
        ("ListCommands, pages of 10,000", "list"), ("ExportCommands", "export"), ("muster batch commands", "export_table"),
        ("muster batch commands --format csv", "export_csv"), ("muster batch commands --format json", "export_json"))],
    ("WatchBatch, {count:,} devices: CPU of the dispatcher per update", [
        ("1 watcher", "watch_1_ms_per_update", "{:,.2f} ms", ("max", 1)),
        ("10 watchers", "watch_10_ms_per_update", "{:,.2f} ms", ("max", 1)),
        ("100 watchers", "watch_100_ms_per_update", "{:,.2f} ms", ("max", 1)),
        ("1,000 watchers", "watch_1000_ms_per_update", "{:,.2f} ms", None),
        ("each further watcher", "watch_us_per_message", "{:,.2f} µs", None),
    ]),
]
