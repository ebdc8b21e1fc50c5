"""The core path beside what people use today: one command to every device of a fleet, and every acknowledgement back.

The same machine, the same run, the same simulated fleet, the same payloads, round by round in turns. Muster answers for
more than the brokers do: its round ends when the last outcome is committed in PostgreSQL and the device knows it, theirs
when a sender that keeps nothing has read the last answer."""
import json
import os
import statistics
import subprocess
import time

from . import brokers, processes, prometheus, sockets

from harness.daemons import program  # noqa: E402

# Workers of a Muster row: with the fleet beside them two are what two cores carry.
WORKERS = 2

# How long a round may take.
ROUND_S = 120

# What a round's figures are; the rest of a result is text.
FIGURES = ("cmd_s", "cpu_s_per_100k", "cpu_s_per_100k_all", "p50_ms", "p99_ms")


def _per_100k(us_per_command):
    return us_per_command * 1e5 / 1e6


class _Muster:
    """Workers of its own in the installation, and the devices of a tenant of its own on them."""

    DURABLE = "every outcome committed in PostgreSQL (fsync) before the PUBACK"

    def __init__(self, installation, name, devices, tls, records=None):
        self.name, self.stack = name, installation.stack
        lean = ["--tls-records", records] if records else []
        doors = {"listen": "127.0.0.1:0"} if tls else {"listen": ""}
        plain = [] if tls else ["--listen-plain", "127.0.0.1:0"]
        self.workers = [self.stack.start_worker(*lean, *plain, **doors) for _ in range(WORKERS)]
        client = self.stack.client(self.stack.make_tenant(name.replace(" ", "-")), timeout=120)
        tokens = self.stack.make_devices(client, devices, name.replace(" ", "-"))
        self.core = sockets.Core(installation, client, tokens, self.workers, [*lean, *([] if tls else ["--no-tls"])])
        self.version = subprocess.run([self.workers[0].args[0], "--version"], capture_output=True, text=True, check=True).stdout.strip()
        self.setting = f"{WORKERS} workers, one dispatcher; Redis AOF everysec" + (f"; TLS records {records}" if records else "")
        self.rss = self.core.rss

    def _scrape(self):
        return prometheus.scrape([w.admin for w in self.workers])

    def round(self):
        before = self._scrape()
        done = self.core.round()
        p50, p99, _ = prometheus.quantiles_ms(before, self._scrape(), "muster_worker_push_ack_seconds")
        ours = sum(us for name, us in done["us"].items() if name != "fleet")
        return {"cmd_s": done["cmd_s"], "cpu_s_per_100k": _per_100k(ours),
                "cpu_s_per_100k_all": _per_100k(ours + done["us"]["fleet"]), "p50_ms": p50, "p99_ms": p99}

    def stop(self):
        self.core.fleet.quit()
        for w in self.workers:
            w.stop()


class _Floor:
    """A bare epoll server that exchanges the records of a command (muster-floor)."""

    DURABLE = "nothing is kept"

    def __init__(self, certificates, name, devices):
        self.name, self.version = name, "muster-floor"
        self.setting = "one process, TLS 1.3, no MQTT"
        self.floor = sockets.Floor(certificates, devices, 1)
        self.rss = None

    def round(self):
        done = self.floor.round()
        self.rss = done["rss"]
        return {"cmd_s": done["cmd_s"], "cpu_s_per_100k": _per_100k(done["server_us"]),
                "cpu_s_per_100k_all": _per_100k(done["server_us"] + done["fleet_us"]), "p50_ms": None, "p99_ms": None}

    def stop(self):
        self.floor.stop()


class _Broker:
    """A broker with the fleet on it, and muster-sender, the service that commands it."""

    def __init__(self, certificates, folder, name, devices, kind, tls, protocol, fleet_flags=(), durable="in memory only", **options):
        self.name, self.devices, self.DURABLE = name, devices, durable
        self.version = kind.version()
        self.broker = self.fleet = self.sender = None
        try:
            self.broker = kind(os.path.join(folder, name.replace(" ", "-")), certificates if tls else None, **options)
            self.setting = "; ".join(line for line in self.broker.lines(**options) if self.broker.folder not in line
                                     and not line.startswith(("listen", "certfile", "keyfile", "tls ", "user ")))
            self._connect(["--ca", certificates.ca] if tls else ["--no-tls"], protocol, fleet_flags)
        except BaseException:
            self.stop()
            raise

    def _connect(self, tls, protocol, fleet_flags):
        before = processes.rss_bytes([self.broker.pid])
        common = ["--connect", self.broker.address, "--devices", str(self.devices), *tls]
        self.fleet = _Program("muster-fleet", *common, "--quiet", "--json", "--control", *fleet_flags)
        self.fleet.read("ready")
        time.sleep(1.0)  # what the handshakes left is freed
        self.rss = (processes.rss_bytes([self.broker.pid]) - before) / self.devices
        self.sender = _Program("muster-sender", *common, "--protocol", protocol, "--step", "--rounds", "1000000",
                               "--timeout", f"{ROUND_S}s")
        self.sender.read("ready")

    def round(self):
        meter = processes.Meter({"service": [self.broker.pid, self.sender.pid], "fleet": [self.fleet.pid]})
        self.sender.say("")
        done = self.sender.read("round")
        time.sleep(0.05)  # the last confirmations are read
        used = meter.read()
        return {"cmd_s": done["commands"] / done["seconds"], "cpu_s_per_100k": _per_100k(used["service"] / self.devices),
                "cpu_s_per_100k_all": _per_100k(sum(used.values()) / self.devices),
                "p50_ms": done["p50_ms"], "p99_ms": done["p99_ms"]}

    def stop(self):
        for p in (self.sender, self.fleet, self.broker):
            if p:
                p.stop()


class _Program:
    """One of our programs that reads lines and writes JSON ones."""

    def __init__(self, name, *flags):
        self.popen = subprocess.Popen([program(name), *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.popen.pid

    def say(self, word):
        self.popen.stdin.write(word + "\n")
        self.popen.stdin.flush()

    def read(self, event):
        line = self.popen.stdout.readline()
        if not line or json.loads(line)["event"] != event:
            raise AssertionError(f"{self.popen.args[0]}: waited for {event!r}, got {line!r}")
        return json.loads(line)

    def stop(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()


def _makers(installation, devices):
    """[(name, a function that starts it)], and of those that are not installed {name: {"missing": why}}."""
    missing, certificates, folder = {}, installation.stack.certificates, os.path.join(installation.folder, "peers")
    out = [(n, lambda n=n, t=tls, r=records: _Muster(installation, n, devices, t, r)) for n, tls, records in (
        ("muster TLS", True, None), ("muster TLS lean", True, "lean"), ("muster plain", False, None))]
    out.append(("floor TLS", lambda: _Floor(certificates, "floor TLS", devices)))

    def add(name, kind, tls, protocol, *flags, **options):
        if brokers.have(kind):
            out.append((name, lambda: _Broker(certificates, folder, name, devices, kind, tls, protocol, flags, **options)))
        else:
            missing[name] = {"missing": f"{kind.PROGRAM} is not installed: make bench-deps"}
    add("mosquitto QoS 1 TLS", brokers.Mosquitto, True, "mqtt")
    # For the row of lean workers, whose devices have lean records too.
    add("mosquitto QoS 1 TLS lean fleet", brokers.Mosquitto, True, "mqtt", "--tls-records", "lean")
    add("mosquitto QoS 1 plain", brokers.Mosquitto, False, "mqtt")
    add("mosquitto QoS 1 plain saved", brokers.Mosquitto, False, "mqtt", "--keep-session", saved=True,
        durable="devices' sessions and commands in a snapshot every second, confirmed before")
    add("mosquitto QoS 0 plain", brokers.Mosquitto, False, "mqtt-qos0", "--qos", "0", durable="in memory only, at most once")
    add("NATS TLS", brokers.Nats, True, "nats", "--nats", durable="in memory only, at most once")
    add("NATS plain", brokers.Nats, False, "nats", "--nats", durable="in memory only, at most once")
    return out, missing


def measure(installation, devices, rounds, progress):
    """{name: {"cmd_s", "cpu_s_per_100k" (service and sender), "cpu_s_per_100k_all" (and fleet), "p50_ms", "p99_ms": medians
    of the rounds; "to_muster": median over the rounds of its rate by that of "muster TLS"; "rss_per_device" (bytes of the
    server or None); "durable", "version", "setting": text; "rounds": [the same figures each]}}; of what is not installed
    {"missing": why}. The first round of each is thrown away. A broker's latency is the sender's, command written to answer
    read; Muster's the worker's: all of the fleet is commanded at once, so it is mostly the time of those before."""
    rows = []
    makers, missing = _makers(installation, devices)
    try:
        for name, make in makers:
            progress(f"{name}: connecting {devices:,} devices")
            rows.append(make())
        taken = {row.name: [] for row in rows}
        for n in range(rounds + 1):
            progress(f"core path, round {n} of {rounds}")
            for row in rows:
                done = row.round()
                if n:
                    taken[row.name].append(done)
        return {**{row.name: _result(row, taken) for row in rows}, **missing}
    finally:
        for row in rows:
            row.stop()


def _result(row, taken):
    rounds = taken[row.name]

    def median(values):
        known = [v for v in values if v is not None]
        return statistics.median(known) if known else None

    out = {key: median(r[key] for r in rounds) for key in FIGURES}
    out["to_muster"] = median(r["cmd_s"] / m["cmd_s"] for r, m in zip(rounds, taken["muster TLS"]))
    return {**out, "rss_per_device": row.rss, "durable": row.DURABLE, "version": row.version, "setting": row.setting,
            "rounds": rounds}


def goals(results):
    """[(what, measured, wanted at least)], of ratios taken round by round."""
    def ratio(a, b):
        if "missing" in results[a] or "missing" in results[b]:
            return None
        return statistics.median(x["cmd_s"] / y["cmd_s"] for x, y in zip(results[a]["rounds"], results[b]["rounds"]))
    wanted = [("muster TLS", "mosquitto QoS 1 TLS", 3.0), ("muster TLS lean", "mosquitto QoS 1 TLS lean fleet", 3.0),
              ("muster TLS", "floor TLS", 0.75)]
    return [(f"{a} / {b}", found, least) for a, b, least in wanted if (found := ratio(a, b)) is not None]
