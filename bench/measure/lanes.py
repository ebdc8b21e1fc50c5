"""Who waits for whom: an urgent command while a bulk one is sent to everybody, and small tenants while a large one sends a
hundred times as much as all of them. From the call of SubmitBatch until the device has the command, by the devices' own record,
in whole ms. What a call that only asks (validate_only) takes beside the same says how much of that is the caller's and the
machine's part: the client, the network and the dispatcher's answer, and the waits for a processor of these."""
import os
import random
import subprocess
import sys
import threading
import time

CROWD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd.py")

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
        ("a call that only asks, p99, alone", "fair_alone_bare_p99_ms", "{:,.1f} ms", None),
        ("a call that only asks, p99, beside it", "fair_bare_p99_ms", "{:,.1f} ms", None),
    ]),
]

SMALL, RATE = 10, 100      # tenants, and commands a second of all together
HEAVY = 100                # times as many of the large one,
HEAVY_EVERY_S = 0.25       # in batches by the clock
URGENT_EVERY_S = 0.02
EACH = 40                  # devices of a small tenant
BARE_EVERY_S = 0.05        # calls that only ask
ARRIVAL_S = 30             # until a command that was accepted is at its device, or lost


class Tenant:
    """One of its own, or (with `client`) another's, with devices more."""

    def __init__(self, field, name, client=None, connected=EACH):
        s = field.stack
        self.client = client or s.client(s.make_tenant(name))
        self.ids = [f"{name}-{i:04d}" for i in range(connected)]
        s.import_devices(self.client, self.ids)
        self.tokens = s.tokens(self.client, self.ids)


class Threads:
    """`count` of them, each at work(its number) until the end of `with`; what one of them raises is raised there."""

    def __init__(self, count):
        self.ending, self.error = threading.Event(), None
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]

    def _run(self, n):
        try:
            self.work(n)
        except Exception as e:
            self.error = e

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for t in self.threads:
            t.join(120)
        if self.error:
            raise self.error


class Calls(Threads):
    """Commands to one device each, by the clock, from threads of its own: `with Calls(…)`; then `took(record)`."""

    def __init__(self, field, tenants, every_s, priority):
        super().__init__(len(tenants))
        self.field, self.tenants, self.every_s, self.priority, self.sent = field, tenants, every_s, priority, []

    def work(self, n):
        pb, due, tenant = self.field.pb, time.monotonic() + random.random() * self.every_s, self.tenants[n]
        while not self.ending.wait(max(due - time.monotonic(), 0)):
            due, began = due + self.every_s, time.time()
            target = pb.Target(devices=pb.DeviceIds(ids=[random.choice(tenant.ids)]))
            answer = self.field.stack.submit(tenant.client, target=target, priority=self.priority)
            self.sent.append((answer.batch.id, n, began * 1000))

    def took(self, fleet, only=None):
        """ms of each, in order; of the tenant with this index, or of all."""
        limit = time.monotonic() + ARRIVAL_S
        while missing := {batch for batch, _, _ in self.sent} - (came := _received_ms(fleet)).keys():
            if time.monotonic() > limit:
                raise AssertionError(f"{len(missing)} commands have not come to their devices, batch {min(missing)} first")
            time.sleep(0.1)
        return sorted(max(came[batch] - began, 0) for batch, n, began in self.sent if only in (None, n))


class Bare(Threads):
    """Calls that only ask, of one tenant; `ms` has what each took."""

    def __init__(self, field, tenant):
        super().__init__(1)
        self.field, self.tenant, self.ms = field, tenant, []

    def work(self, _):
        pb, target = self.field.pb, self.field.pb.Target(devices=self.field.pb.DeviceIds(ids=self.tenant.ids[:1]))
        while not self.ending.wait(BARE_EVERY_S):
            began = time.monotonic()
            self.field.stack.submit(self.tenant.client, target=target, validate_only=True)
            self.ms.append((time.monotonic() - began) * 1000)

    def quantile(self, q):
        return _quantile(sorted(self.ms), q)


def _received_ms(fleet):
    """{batch: when its device had it}, of batches to one device."""
    fleet.dump()
    came = {}
    with open(fleet.record_path, encoding="ascii") as f:
        for line in f:
            word = line.split()
            came[int(word[1][:13].replace("-", ""), 16)] = int(word[6])
    return came


def _quantile(sorted_ms, q):
    return sorted_ms[min(int(q * len(sorted_ms)), len(sorted_ms) - 1)]


class Crowd:
    """The field's tenant, busy (see crowd.py): `with Crowd(field, "flow", …)`."""

    def __init__(self, field, kind, *more):
        f, s = field, field.stack
        self.args = [f.installation.folder + "/py", s.dispatchers[0].address, s.certificates.ca, f.tenant.key, kind,
                     str(f.connected), *(str(m) for m in more)]

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, CROWD, *self.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout.readline() == "ready\n", "the crowd does not begin"
        return self

    def commands(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return int(self.child.stdout.readline())

    def __exit__(self, *_):
        self.child.stdin.close()
        assert self.child.wait(120) == 0, "the crowd has failed"


def _run_for(seconds, *contexts):
    if contexts:
        with contexts[0]:
            return _run_for(seconds, *contexts[1:])
    time.sleep(seconds)
    return None


def measure_urgent(field, progress):
    seconds = 6 * field.rounds
    own, other = Tenant(field, "own", field.client), Tenant(field, "other")
    fleet = field.stack.start_fleet({**own.tokens, **other.tokens})
    urgent = field.pb.PRIORITY_URGENT
    alone, beside = (Calls(field, [own, other], 2 * URGENT_EVERY_S, urgent) for _ in range(2))
    bare_alone, bare = Bare(field, other), Bare(field, other)
    progress(f"urgent commands, {seconds} s alone")
    _run_for(seconds, bare_alone, alone)
    progress(f"urgent commands, {seconds} s beside bulk ones to all devices")
    with Crowd(field, "flow") as flow:
        time.sleep(1)
        began, before = time.monotonic(), flow.commands()
        _run_for(seconds, bare, beside)
        bulk_s = (flow.commands() - before) / (time.monotonic() - began)
    a, b = alone.took(fleet), beside.took(fleet)
    out = {"urgent_alone_p50_ms": _quantile(a, 0.5), "urgent_alone_p99_ms": _quantile(a, 0.99),
           "urgent_p50_ms": _quantile(b, 0.5), "urgent_p99_ms": _quantile(b, 0.99), "urgent_max_ms": b[-1],
           "urgent_calls": len(b), "urgent_own_p99_ms": _quantile(beside.took(fleet, 0), 0.99),
           "urgent_other_p99_ms": _quantile(beside.took(fleet, 1), 0.99), "urgent_bulk_s": bulk_s,
           "urgent_alone_bare_p99_ms": bare_alone.quantile(0.99),
           "urgent_bare_p50_ms": bare.quantile(0.5), "urgent_bare_p99_ms": bare.quantile(0.99)}
    fleet.quit()
    return out


def measure_fair(field, progress):
    seconds = 6 * field.rounds
    small = [Tenant(field, f"small{n}") for n in range(SMALL)]
    fleet = field.stack.start_fleet({d: t for s in small for d, t in s.tokens.items()})
    normal = field.pb.PRIORITY_NORMAL
    alone, beside = (Calls(field, small, SMALL / RATE, normal) for _ in range(2))
    bare_alone, bare = Bare(field, small[0]), Bare(field, small[0])
    progress(f"{SMALL} small tenants, {seconds} s alone")
    _run_for(seconds, bare_alone, alone)
    progress(f"{SMALL} small tenants, {seconds} s beside a large one")
    with Crowd(field, "heavy", int(HEAVY * RATE * HEAVY_EVERY_S), HEAVY_EVERY_S) as heavy:
        time.sleep(1)
        began, before = time.monotonic(), heavy.commands()
        _run_for(seconds, bare, beside)
        heavy_s = (heavy.commands() - before) / (time.monotonic() - began)
    a, b = alone.took(fleet), beside.took(fleet)
    fleet.quit()
    return {"fair_small": SMALL, "fair_rate": RATE, "fair_heavy_s": heavy_s, "fair_calls": len(b), "fair_max_ms": b[-1],
            "fair_alone_p50_ms": _quantile(a, 0.5), "fair_alone_p99_ms": _quantile(a, 0.99),
            "fair_p50_ms": _quantile(b, 0.5), "fair_p99_ms": _quantile(b, 0.99),
            "fair_p99_ratio": _quantile(b, 0.99) / max(_quantile(a, 0.99), 1),
            "fair_alone_bare_p99_ms": bare_alone.quantile(0.99), "fair_bare_p99_ms": bare.quantile(0.99)}
