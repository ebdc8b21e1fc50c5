"""A whole fleet on one machine: as many workers and simulators as its descriptors ask for, all connected, one command to
all of them, and what it weighs when nothing happens."""
import resource
import statistics
import time

from . import memory, prometheus
from .memory import Census
from .sockets import Floor

# Descriptors of a worker that are not devices, and room for devices that come while others go.
SPARE_DESCRIPTORS = 800

# Bytes per device that all processes and the kernel together take, rounded up, and what the servers need besides.
BYTES_A_DEVICE = {"openssl": 48000, "lean": 16000, "plain": 14000}
BYTES_OF_SERVERS = 2 << 30

CONNECT_S = 900
ROUND_S = 120

# Handshakes under way in one simulator process: enough that its worker has always some to do, also when it has to wait for
# its turn among all the others.
HANDSHAKES = 96


class TooSmall(Exception):
    """This machine cannot hold so many devices."""


def workers_needed(devices):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = hard - SPARE_DESCRIPTORS
    if each <= 0:
        raise TooSmall(f"a process may open {hard} files here; a worker needs {SPARE_DESCRIPTORS} and one for each device")
    return -(-devices // each)


def check_memory(devices, mode):
    """Raises TooSmall when the devices would not fit beside what runs here already."""
    needed, left = devices * BYTES_A_DEVICE[mode] + BYTES_OF_SERVERS, memory.available_bytes()
    if needed > left:
        raise TooSmall(f"{devices:,} devices ({mode}) need about {needed / 2**30:,.1f} GiB, {left / 2**30:.1f} GiB are available")


def start_workers(stack, count, mode):
    if mode == "plain":
        return [stack.start_worker("--listen-plain", "127.0.0.1:0", listen="") for _ in range(count)]
    flags = ["--tls-records", "lean"] if mode == "lean" else []
    return [stack.start_worker(*flags) for _ in range(count)]


def records(mode):
    """Flags of the simulator, and of the floor."""
    return {"plain": ["--no-tls"], "lean": ["--tls-records", "lean"], "openssl": []}[mode]


def fleet_flags(mode, *more):
    return ["--quiet", "--handshakes", HANDSHAKES, *records(mode), *more]


class Fleet:
    """Connects devices, tells what that took."""

    def __init__(self, installation, client, tokens, mode, progress, *flags):
        self.i, self.client, self.devices, self.progress = installation, client, len(tokens), progress
        self.workers = installation.stack.workers
        self.census = Census([w.pid for w in self.workers])
        meter, began = installation.meter(), time.monotonic()
        self.fleet = installation.stack.start_fleet(tokens, *fleet_flags(mode, *flags), wait=False)
        self._wait_connected(began)
        self.seconds = time.monotonic() - began
        used = installation.meter([self.fleet]).before
        self.cpu = {name: (used[name] - meter.before.get(name, 0)) / self.devices for name in used}
        self.cpu["fleet"] = used["fleet"] / self.devices

    def _wait_connected(self, began):
        shown = 0
        while (stats := self.fleet.stats())["ready"] < self.devices:
            waited = time.monotonic() - began
            if waited > CONNECT_S:
                raise AssertionError(f"{stats['ready']} of {self.devices} devices are connected after {CONNECT_S} s: {stats}")
            if waited - shown > 10:
                shown = waited
                self.progress(f"  {stats['ready']:,} connected, {stats['failures']} attempts failed")
            time.sleep(0.1)

    def weigh(self):
        """Bytes per device by owner, once what the handshakes left is freed."""
        time.sleep(3.0)
        return {name: total / self.devices for name, total in self.census.read([self.fleet.pid]).items()}

    def idle(self, seconds):
        """CPU µs per second of each component while nothing happens but keepalives, and the number of these per second."""
        admins = [w.admin for w in self.workers]
        pings = prometheus.scrape(admins)["muster_worker_pings_total"]
        meter, began = self.i.meter([self.fleet]), time.monotonic()
        time.sleep(seconds)
        used, past = meter.read(), time.monotonic() - began
        pings = prometheus.scrape(admins)["muster_worker_pings_total"] - pings
        return {name: us / past for name, us in used.items()} | {"pings": pings / past}

    def round(self):
        """One command to all; see sockets.Core.round."""
        wanted = self.fleet.stats()["acked"] + self.devices
        meter, began = self.i.meter([self.fleet]), time.monotonic()
        batch = self.i.stack.submit(self.client).batch
        accepted = time.monotonic()
        if batch.device_count != self.devices:
            raise AssertionError(f"a batch to all addresses {batch.device_count} of {self.devices} devices")
        while (stats := self.fleet.stats())["acked"] < wanted:
            if time.monotonic() - began > ROUND_S:
                raise AssertionError(f"{stats['acked']} of {wanted} acknowledgements have their PUBACK after {ROUND_S} s: {stats}")
            time.sleep(0.05)
        seconds = stats["last_acked_us"] / 1e6 - began  # a PUBACK comes after the commit
        closed = self.i.wait_closed(self.client, batch.id)
        used = meter.read()
        self.i.succeeded(closed)
        return {"seconds": seconds, "accept_ms": (accepted - began) * 1e3, "closed_s": time.monotonic() - began,
                "us": {name: us / self.devices for name, us in used.items()}}

    def faults(self):
        """What must not have happened: each a count."""
        stats, seen = self.fleet.stats(), prometheus.scrape([w.admin for w in self.workers])
        return {
            "connection attempts failed": stats["failures"],
            "connections lost": stats["lost"],
            "workers fenced": seen["muster_worker_fenced_total"],
            "handshakes or logins too late": seen["muster_worker_connect_timeouts_total"],
            "keepalives too late": seen["muster_worker_keepalive_timeouts_total"],
        }


def measure(installation, client, tokens, a, progress):
    """Results of one mode (bench/scale.py's arguments): flat, keys as report_scale knows them."""
    progress(f"connecting {len(tokens):,} devices ({a.mode}) to {len(installation.stack.workers)} workers")
    f = Fleet(installation, client, tokens, a.mode, progress)
    progress(f"  connected in {f.seconds:.1f} s; weighing")
    out = {"connect_s": f.seconds, "connect_s_rate": f.devices / f.seconds}
    out |= {f"connect_{name}_us": us for name, us in f.cpu.items()}
    out |= {f"{name}_bytes": value for name, value in f.weigh().items()}
    progress("idle")
    out |= {f"idle_{name}_us_s" if name != "pings" else "idle_pings_s": v for name, v in f.idle(a.idle).items()}
    admins, before = [w.admin for w in f.workers], {}
    done = []
    for n in range(a.rounds + 1):
        done.append(f.round())
        progress(f"round {n} of {a.rounds}: {done[-1]['seconds']:.2f} s")
        if n == 0:
            before = prometheus.scrape(admins)
    after = prometheus.scrape(admins)
    out["faults"] = {name: n for name, n in f.faults().items() if n}
    out["fault_count"] = sum(out["faults"].values())
    return out | _rounds(f.devices, done) | _latencies(before, after)


def measure_floor(stack, devices, a, progress):
    """The floor with as many connections in as many processes; there is no room for both at a time, so all else is gone."""
    while stack.workers:
        stack.workers.pop().stop()
    progress(f"connecting {devices:,} peers to {a.workers} processes of the floor")
    floor = Floor(stack.certificates, devices, a.workers, records(a.mode), map(str, fleet_flags(a.mode)))
    try:
        done = []
        for n in range(a.rounds + 1):
            done.append(floor.round())
            progress(f"round {n} of {a.rounds}: {devices / done[-1]['cmd_s']:.2f} s")
    finally:
        floor.stop()
    out = {name: statistics.median(r[key] for r in done[1:])
           for name, key in (("server_us_per_cmd", "server_us"), ("fleet_us_per_cmd", "fleet_us"), ("rss_bytes", "rss"))}
    out["s"] = statistics.median(devices / r["cmd_s"] for r in done[1:])
    out["all_us_per_cmd"] = out["server_us_per_cmd"] + out["fleet_us_per_cmd"]
    return {f"floor_{name}": value for name, value in out.items()}


def _rounds(devices, done):
    first, rest = done[0], done[1:]
    seconds = statistics.median(r["seconds"] for r in rest)
    out = {"first_s": first["seconds"], "all_s": seconds, "all_cmd_s": devices / seconds,
           "all_s_rounds": [r["seconds"] for r in rest], "accept_ms": statistics.median(r["accept_ms"] for r in rest),
           "closed_s": statistics.median(r["closed_s"] for r in rest)}
    for name in rest[0]["us"]:
        out[f"{name}_us_per_cmd"] = statistics.median(r["us"][name] for r in rest)
    # What else this machine did meanwhile is in the seconds, but not in these.
    out["all_us_per_cmd"] = statistics.median(sum(r["us"].values()) for r in rest)
    out["cores_used"] = statistics.median(sum(r["us"].values()) * devices / 1e6 / r["seconds"] for r in rest)
    return out


def _latencies(before, after):
    out = {}
    for label in ("push_ack", "submit_push"):
        for q, value in zip(("p50", "p99", "p999"),
                            prometheus.quantiles_ms(before, after, f"muster_worker_{label}_seconds")):
            out[f"{label}_{q}_ms"] = value
    return out
