"""What devices that behave feel of 20,000 half-open TLS connections, and of peers that take for ever over their first words. The
peers share the machine with what they attack, so each is measured in turns with the same at a listener that only accepts."""
import os
import statistics
import subprocess
import sys
import threading

from . import priorities, processes, prometheus
from .installation import ROOT
from .overload import EVERY_S, SLICE, Steady

HARNESS = os.path.join(ROOT, "tests", "integration")
HISTOGRAM = "muster_worker_push_ack_seconds"
SETTLE_S = 1.5
WORKERS_CORE, FLEETS_CORE = 0, 1  # as if who attacks, and who else works here, were elsewhere
SLOW_RATE = 100  # a second, of each manner

# Which p99 over which.
RATIOS = {"coming_ratio": ("coming", "bare_coming"), "standing_ratio": ("standing", "alone"), "slow_ratio": ("slow", "alone"),
          "bare_ratio": ("bare_standing", "alone")}

TABLE = [
    ("{steady:,} devices at {steady_cmd_s:,.0f} commands/s; {strangers:,} half-open connections come, {coming}; {rounds} rounds", [
        ("push → ack p50, alone", "half_open_alone_p50_ms", "{:,.2f} ms", None),
        ("p50, while they stand", "half_open_standing_p50_ms", "{:,.2f} ms", None),
        ("push → ack p99, alone", "half_open_alone_p99_ms", "{:,.2f} ms", None),
        ("p99, while they come", "half_open_coming_p99_ms", "{:,.2f} ms", None),
        ("while they come to a bare listener", "half_open_bare_coming_p99_ms", "{:,.2f} ms", None),
        ("come / come to the bare listener", "half_open_coming_ratio", "{:.2f}", ("max", 1.10)),
        ("p99, while they stand", "half_open_standing_p99_ms", "{:,.2f} ms", None),
        ("stand / alone", "half_open_standing_ratio", "{:.2f}", ("max", 1.10)),
        ("stand at the bare listener / alone", "half_open_bare_ratio", "{:.2f}", None),
        ("p99, slow MQTT, HTTP/2 peers", "half_open_slow_p99_ms", "{:,.2f} ms", None),
        ("slow peers / alone", "half_open_slow_ratio", "{:.2f}", ("max", 1.10)),
        ("worker's cores, alone", "half_open_alone_share", "{:.3f}", None),
        ("while they come", "half_open_coming_share", "{:.3f}", None),
        ("while they stand", "half_open_standing_share", "{:.3f}", None),
        ("beside slow peers", "half_open_slow_share", "{:.3f}", None),
        ("worker's memory grown", "half_open_rss_growth", "{:,.0f} bytes", None),
        ("closed early for want of room", "half_open_dropped", "{:,.0f}", None),
        ("devices lost", "half_open_lost", "{:,.0f}", ("max", 0)),
    ]),
]


class Peers:
    """A process of peers, until its end."""

    def __init__(self, module, *args):
        self.child = subprocess.Popen([sys.executable, "-m", f"harness.{module}", *map(str, args)], cwd=HARNESS,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin_to_end(self):
        self.child.stdin.close()

    def wait_end(self):
        self.child.wait(60)


class Crowd:
    """Processes of half-open peers: all manners, `count` connections in all, those closed made anew."""

    def __init__(self, address, count, coming):
        self.peers = [Peers("strangers", address, count // 3, manner, 2 + n, 100, coming / 3)
                      for n, manner in enumerate(("silent", "half", "hello"))]

    def there(self):
        """A thread that lives until all have been connected."""
        there = threading.Thread(target=lambda: [p.child.stdout.readline() for p in self.peers])
        there.start()
        return there

    def end(self):
        for p in self.peers:
            p.begin_to_end()
        for p in self.peers:
            p.wait_end()


class SlowCrowd(Crowd):
    """Peers that took the trouble of a handshake: half of them at the worker, half at the dispatcher."""

    def __init__(self, worker, dispatcher, count):
        self.peers = [Peers("slow_peers", worker, count // 2, "connect", 2, SLOW_RATE)]
        self.peers += [Peers("slow_peers", dispatcher, count // 6, manner, 3 + n, SLOW_RATE)
                       for n, manner in enumerate(("headers", "data", "deaf"))]


class BareListener:
    """A process that accepts whatever comes and does nothing with it: what a crowd costs who only shares its machine."""

    CODE = """
import resource, select, socket, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
s, taken = socket.create_server(("127.0.0.1", 0), backlog=4096), []
print("127.0.0.1:%d" % s.getsockname()[1], flush=True)
s.setblocking(False)
while True:
    ready = select.select([s, sys.stdin] if len(taken) < most - 64 else [sys.stdin], [], [])[0]
    if sys.stdin in ready:
        break
    while len(taken) < most - 64:
        try:
            taken.append(s.accept()[0])
        except BlockingIOError:
            break
"""

    def __init__(self, apart):
        self.apart = apart

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.apart:
            priorities.set_apart([self.child.pid], WORKERS_CORE)
        self.address = self.child.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait(60)


class Rounds:
    """The same phases again and again; what devices felt in each: p50 over all rounds, the median of their p99s."""

    def __init__(self, stack, fleet, steady, a, progress):
        self.steady, self.a, self.progress = steady, a, progress
        self.worker, self.dispatcher = stack.workers[0], stack.dispatchers[0]
        self.grown, self.shares, self.p99s = {}, {}, {}
        self.apart = (os.cpu_count() > 1 and priorities.set_apart([self.worker.pid], WORKERS_CORE) and
                      priorities.set_apart([fleet.pid, *processes.children(fleet.pid)], FLEETS_CORE))

    def _measure(self, name, seconds=None, until=None):
        meter, before = processes.Meter({"worker": [self.worker.pid]}), prometheus.scrape([self.worker.admin])
        took = self.steady.wait(seconds, until)
        after, used = prometheus.scrape([self.worker.admin]), meter.read()["worker"]
        grown = self.grown.setdefault(name, {})
        for key, value in after.items():
            grown[key] = grown.get(key, 0) + value - before.get(key, 0)
        self.shares.setdefault(name, []).append(used / 1e6 / took)
        self.p99s.setdefault(name, []).append(prometheus.quantiles_ms(before, after, HISTOGRAM)[1])

    def _half_open(self, prefix, address):
        self.progress(f"{prefix.strip('_') or 'the worker'}: {self.a.strangers:,} half-open connections")
        crowd = Crowd(address, self.a.strangers, self.a.coming)
        there = crowd.there()
        self._measure(prefix + "coming", until=lambda: not there.is_alive())
        self._measure(prefix + "standing", self.a.seconds)
        crowd.end()

    def alone(self):
        self.progress("alone")
        self._measure("alone", self.a.seconds)

    def bare(self):
        with BareListener(self.apart) as listener:
            self._half_open("bare_", listener.address)

    def half_open(self):
        self._half_open("", self.worker.address)

    def slow(self):
        self.progress(f"{self.a.slow:,} slow peers")
        crowd = SlowCrowd(self.worker.address, self.dispatcher.address, self.a.slow)
        crowd.there().join()
        self._measure("slow", self.a.seconds)
        crowd.end()

    def run(self):
        phases = [self.alone, self.bare, self.half_open, self.slow]
        for n in range(self.a.rounds):
            for phase in phases if n % 2 == 0 else reversed(phases):
                phase()
                self.steady.wait(SETTLE_S)  # until the worker has closed whom they left

    def results(self):
        out = {}
        for name, grown in self.grown.items():
            out[f"{name}_p50_ms"] = prometheus.quantiles_ms({}, grown, HISTOGRAM)[0]
            out[f"{name}_p99_ms"] = statistics.median(self.p99s[name])
            out[f"{name}_share"] = statistics.mean(self.shares[name])
        for name, (phase, other) in RATIOS.items():
            out[name] = out[f"{phase}_p99_ms"] / out[f"{other}_p99_ms"]
        out |= {"p99s_ms": self.p99s, "apart": self.apart}
        out["dropped"] = sum(g[f"muster_worker_{n}_dropped_total"] for g in self.grown.values() for n in ("strangers", "handshakes"))
        return {f"half_open_{key}": value for key, value in out.items()}


def measure(i, client, tokens, a, progress):
    s = i.stack
    worker = s.workers[0]
    fleet = s.start_fleet(tokens, "--quiet", workers=[worker])
    out = {"steady": len(tokens), "steady_cmd_s": SLICE / EVERY_S, "strangers": a.strangers, "slow": a.slow, "rounds": a.rounds,
           "coming": f"{a.coming:,} a second" if a.coming else "all at once"}
    with Steady(s, client, list(tokens), worker) as steady:
        steady.wait(2)
        rss, rounds = processes.rss_bytes([worker.pid]), Rounds(s, fleet, steady, a, progress)
        rounds.run()
    out |= rounds.results() | {"half_open_rss_growth": processes.rss_bytes([worker.pid]) - rss,
                               "half_open_lost": fleet.stats()["lost"]}
    fleet.quit()
    return out
