"""Who waits for whom: an urgent command while a bulk one is sent to everybody, and small tenants while a large one sends a
hundred times as much as all of them. From the moment SubmitBatch is due until the device has the command, by the devices' own
record, in whole ms. What a call that only asks (validate_only) takes beside the same says how much of that is the caller's and the
machine's part: the client, the network and the dispatcher's answer, and the waits for a processor of these.

The large tenant's devices and its client would not run on Muster's machine: beside the small ones they have only the processor time
that nobody else needs, and the workers run as README says of those that share a machine, by nice. That all of its commands come to
its devices as fast as they are sent is measured, too."""
import os
import random
import subprocess
import sys
import threading
import time

from . import priorities
from .installation import ROOT

CROWD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd.py")
PROGRAM = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster-submit-load")

TABLE = [
    ("An urgent command to one device while {registered:,} devices, {connected:,} of them connected, get a bulk one", [
        ("submit → device p50, alone", "urgent_alone_p50_ms", "{:,.0f} ms", None),
        ("submit → device p99, alone", "urgent_alone_p99_ms", "{:,.0f} ms", None),
        ("submit → device p50", "urgent_p50_ms", "{:,.0f} ms", None),
        ("submit → device p99", "urgent_p99_ms", "{:,.0f} ms", ("max", 100)),
        ("p99 of the same tenant's devices", "urgent_own_p99_ms", "{:,.0f} ms", ("max", 100)),
        ("p99 of another tenant's", "urgent_other_p99_ms", "{:,.0f} ms", ("max", 100)),
        ("a call that only asks, p50", "urgent_bare_p50_ms", "{:,.1f} ms", None),
        ("a call that only asks, p99", "urgent_bare_p99_ms", "{:,.1f} ms", None),
        ("the bulk ones meanwhile", "urgent_bulk_s", "{:,.0f} commands/s", None),
    ]),
    ("{fair_small} tenants with {fair_rate:,} commands/s in all, beside one with {fair_heavy_s:,.0f}/s of the same class", [
        ("submit → device p50, alone", "fair_alone_p50_ms", "{:,.0f} ms", None),
        ("submit → device p99, alone", "fair_alone_p99_ms", "{:,.0f} ms", None),
        ("submit → device p50, beside it", "fair_p50_ms", "{:,.0f} ms", None),
        ("submit → device p99, beside it", "fair_p99_ms", "{:,.0f} ms", None),
        ("p99 beside it / alone", "fair_p99_ratio", "{:.2f}", ("max", 2)),
        ("the large one's meanwhile at its devices", "fair_heavy_arrived_s", "{:,.0f} commands/s", None),
        ("CPU of one alone: dispatcher", "fair_alone_dispatcher_us", "{:,.0f} µs", None),
        ("CPU of one alone: worker", "fair_alone_worker_us", "{:,.0f} µs", None),
        ("CPU of one alone: Redis", "fair_alone_redis_us", "{:,.0f} µs", None),
        ("CPU of one alone: PostgreSQL", "fair_alone_pg_us", "{:,.0f} µs", None),
        ("a call that only asks, p99, alone", "fair_alone_bare_p99_ms", "{:,.1f} ms", None),
        ("a call that only asks, p99, beside it", "fair_bare_p99_ms", "{:,.1f} ms", None),
    ]),
]

SMALL, RATE = 10, 100      # tenants, and commands a second of all together
HEAVY = 100                # times as many of the large one,
HEAVY_EVERY_S = 0.25       # in batches by the clock
URGENT_RATE = 50           # commands a second of two tenants
EACH = 40                  # devices of a small tenant
WORKER_NICE = 10           # README, "Running it"
TURNS, TURN_S = 2, 3       # of each of both, a round; seconds of each,
WARM_S = 0.5               # and before it
SETTLE_S = 0.5
BARE_EVERY_S = 0.05        # calls that only ask
ARRIVAL_S = 30             # until a command that was accepted is at its device, or lost


class Tenant:
    """One of its own, or (with `tenant` and `client`) another's, with devices more."""

    def __init__(self, field, name, tenant=None, client=None):
        s = field.stack
        tenant = tenant or s.make_tenant(name)
        self.key, self.client = tenant.key, client or s.client(tenant)
        self.ids = [f"{name}-{i:04d}" for i in range(EACH)]
        s.import_devices(self.client, self.ids)
        self.tokens = s.tokens(self.client, self.ids)


class Calls:
    """Commands to one device each, `rate` a second in all, from callers in C (muster-submit-load), so that what they wait for
    is Muster: `run` as often as needed, then `took`."""

    def __init__(self, field, tenants, rate, priority):
        self.field, self.tenants, self.priority, self.rate, self.sent = field, tenants, priority, rate, []
        self.ids_path, self.record_path = (os.path.join(field.installation.folder, f"calls.{name}") for name in ("ids", "sent"))

    def run(self, seconds):
        s, n = self.field.stack, len(self.tenants)
        shuffled = [random.sample(t.ids, EACH) for t in self.tenants]
        with open(self.ids_path, "w", encoding="ascii") as f:
            f.writelines(f"{ids[k]}\n" for k in range(EACH) for ids in shuffled)
        args = ["--target", s.dispatchers[0].address, "--ca", s.certificates.ca, "--ids", self.ids_path, "--connections", n,
                "--api-key", ",".join(t.key for t in self.tenants), "--rate", self.rate, "--priority", self.priority,
                "--warmup", f"{WARM_S * 1000:.0f}ms", "--measure", f"{seconds}s", "--record", self.record_path]
        subprocess.run([PROGRAM, *map(str, args)], check=True, stdout=subprocess.DEVNULL, timeout=seconds + 120)
        with open(self.record_path, encoding="ascii") as f:
            self.sent += [(int(batch), float(due)) for batch, due in map(str.split, f)]

    def took(self, fleet, devices=None):
        """ms of each, in order; of those to these devices, or of all."""
        limit = time.monotonic() + ARRIVAL_S
        while missing := {batch for batch, _ in self.sent} - (came := _received(fleet)).keys():
            if time.monotonic() > limit:
                raise AssertionError(f"{len(missing)} commands have not come to their devices, batch {min(missing)} first")
            time.sleep(0.1)
        return sorted(max(came[batch][1] - due, 0) for batch, due in self.sent if not devices or came[batch][0] in devices)


class Bare:
    """Calls that only ask, of one tenant, within each `with`; `ms` has what each took. What one raises is raised there."""

    def __init__(self, field, tenant):
        self.field, self.tenant, self.ms, self.error = field, tenant, [], None

    def _ask(self, ending):
        pb, target = self.field.pb, self.field.pb.Target(devices=self.field.pb.DeviceIds(ids=self.tenant.ids[:1]))
        try:
            while not ending.wait(BARE_EVERY_S):
                began = time.monotonic()
                self.field.stack.submit(self.tenant.client, target=target, validate_only=True)
                self.ms.append((time.monotonic() - began) * 1000)
        except Exception as e:
            self.error = e

    def __enter__(self):
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._ask, args=(self.ending,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(120)
        if self.error:
            raise self.error

    def quantile(self, q):
        return _quantile(sorted(self.ms), q)


def _received(fleet):
    """{batch: (its device, when that had it)}, of batches to one device."""
    fleet.dump()
    came = {}
    with open(fleet.record_path, encoding="ascii") as f:
        for line in f:
            word = line.split()
            came[int(word[1][:13].replace("-", ""), 16)] = word[0], int(word[6])
    return came


def _quantile(sorted_ms, q):
    return sorted_ms[min(int(q * len(sorted_ms)), len(sorted_ms) - 1)]


class Crowd:
    """The field's tenant, busy (see crowd.py) between `go` and `rest`: `with Crowd(field, "flow", …)`."""

    def __init__(self, field, kind, *more):
        f, s = field, field.stack
        self.args = [f.installation.folder + "/py", s.dispatchers[0].address, s.certificates.ca, f.tenant.key, kind,
                     str(f.connected), *(str(m) for m in more)]

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, CROWD, *self.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout.readline() == "ready\n", "the crowd does not begin"
        return self

    def _say(self, word):
        """Commands so far."""
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        return int(self.child.stdout.readline())

    def go(self):
        return self._say("go")

    def rest(self):
        return self._say("rest")

    def __exit__(self, *_):
        self.child.stdin.close()
        assert self.child.wait(120) == 0, "the crowd has failed"


def _measure(field, tenants, rate, priority, crowd):
    """In turns alone and beside the crowd, so that what the machine does meanwhile is shared by both: (calls, calls that only
    ask) alone, the same beside, and of what went on meanwhile: the crowd's commands a second, as sent and as come to devices,
    and what a call alone costs each component in µs of CPU."""
    alone, beside = ((Calls(field, tenants, rate, priority), Bare(field, tenants[-1])) for _ in range(2))
    commands, arrived, seconds, cpu = 0, 0, 0.0, {}
    for _ in range(TURNS * field.rounds):
        with alone[1], field.installation.metered(cpu):
            alone[0].run(TURN_S)
        arrived_before = field.fleet.stats()["received"]
        before, began = crowd.go(), time.monotonic()
        time.sleep(SETTLE_S)
        with beside[1]:
            beside[0].run(TURN_S)
        crowd.rest()
        seconds += time.monotonic() - began
        time.sleep(SETTLE_S)
        commands += crowd.rest() - before  # with what was under way
        arrived += field.fleet.stats()["received"] - arrived_before
    calls = len(alone[0].sent) * (TURN_S + WARM_S) / TURN_S
    return alone, beside, {"sent_s": commands / seconds, "arrived_s": arrived / seconds,
                           "cpu_us": {name: us / calls for name, us in cpu.items()}}


def _figures(name, fleet, alone, beside):
    (calls_alone, bare_alone), (calls, bare) = alone, beside
    a, b = calls_alone.took(fleet), calls.took(fleet)
    return {f"{name}_calls": len(b), f"{name}_max_ms": b[-1],
            f"{name}_alone_p50_ms": _quantile(a, 0.5), f"{name}_alone_p99_ms": _quantile(a, 0.99),
            f"{name}_p50_ms": _quantile(b, 0.5), f"{name}_p99_ms": _quantile(b, 0.99),
            f"{name}_alone_bare_p99_ms": bare_alone.quantile(0.99),
            f"{name}_bare_p50_ms": bare.quantile(0.5), f"{name}_bare_p99_ms": bare.quantile(0.99)}


def measure_urgent(field, progress):
    own, other = Tenant(field, "own", field.tenant, field.client), Tenant(field, "other")
    fleet = field.stack.start_fleet({**own.tokens, **other.tokens})
    progress("urgent commands, in turns alone and beside bulk ones to all devices")
    with Crowd(field, "flow") as crowd:
        alone, beside, meanwhile = _measure(field, [own, other], URGENT_RATE, "urgent", crowd)
    out = {**_figures("urgent", fleet, alone, beside), "urgent_bulk_s": meanwhile["sent_s"]}
    for name, tenant in ("own", own), ("other", other):
        out[f"urgent_{name}_p99_ms"] = _quantile(beside[0].took(fleet, set(tenant.ids)), 0.99)
    fleet.quit()
    return out


def measure_fair(field, progress):
    small = [Tenant(field, f"small{n}") for n in range(SMALL)]
    fleet = field.stack.start_fleet({d: t for s in small for d, t in s.tokens.items()})
    progress(f"{SMALL} small tenants, in turns alone and beside a large one")
    with Crowd(field, "heavy", int(HEAVY * RATE * HEAVY_EVERY_S), HEAVY_EVERY_S) as crowd, \
            priorities.elsewhere([field.fleet.pid, crowd.child.pid]), \
            priorities.nice([w.pid for w in field.stack.workers], WORKER_NICE):
        alone, beside, meanwhile = _measure(field, small, RATE, "normal", crowd)
    out = {"fair_small": SMALL, "fair_rate": RATE, "fair_heavy_s": meanwhile["sent_s"],
           "fair_heavy_arrived_s": meanwhile["arrived_s"], **_figures("fair", fleet, alone, beside)}
    out.update({f"fair_alone_{name}_us": us for name, us in meanwhile["cpu_us"].items()})
    out["fair_p99_ratio"] = out["fair_p99_ms"] / max(out["fair_alone_p99_ms"], 1)
    fleet.quit()
    return out
