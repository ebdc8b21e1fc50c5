"""The queue path beside what people use today: jobs accepted, each taken by a worker, each completed, durable as the system's
fast durable setting has it. The same machine, the same run, round by round in turns.

A peer's time is that of its enqueuing and of its processing, one after the other, from first request to last confirmation;
its CPU time that of its server and its clients (bench/peers/), without starting them. Muster's is from SubmitBatch to the
batch's end, with a worker that answers for the devices itself (queue_path.py)."""
import json
import os
import shutil
import statistics
import subprocess
import time

from . import brokers, processes, queue_servers
from .installation import ROOT
from .queue_path import QueuePath

from harness.daemons import program  # noqa: E402
from harness.process import Process  # noqa: E402

CLIENTS = os.path.join(ROOT, "bench", "peers")
MODULES = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "peers", "node_modules")

# How long one phase of a round may take.
PHASE_S = 120

MUSTER = "Muster"
LISTS = "Redis lists, everysec"
FIGURES = ("jobs_s", "enqueue_s", "process_s", "cpu_s_per_100k", "cpu_s_per_100k_server")


class NotInstalled(Exception):
    """Why a row has no figures."""


def check_done(path_or_paths, jobs):
    """Raises unless the files, a byte a job, say together that every job was completed once."""
    counts = [0] * jobs
    for path in path_or_paths:
        with open(path, "rb") as f:
            counts = list(map(sum, zip(counts, f.read(), strict=True)))
    lost, again = counts.count(0), sum(c > 1 for c in counts)
    if lost or again:
        raise AssertionError(f"of {jobs} jobs {lost} were not completed and {again} more than once")


def _last_line(text):
    lines = [line for line in text if line.startswith("{")]
    if not lines:
        raise AssertionError("a client said nothing:\n" + "\n".join(text[-20:]))
    return json.loads(lines[-1])


def run_client(command, env=None):
    """Runs a client to its end; what it said: {"began", "ended": seconds of CLOCK_MONOTONIC, "cpu_us"}."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PHASE_S, check=False, env=dict(os.environ, **(env or {})))
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return _last_line(done.stdout.splitlines())


class CClient:
    """muster-peers: one process enqueues, one processes."""

    def __init__(self, peer, enqueue=(), process=()):
        self.peer, self.flags = peer, {"enqueue": enqueue, "process": process}

    def check(self):
        """Raises NotInstalled."""

    def run(self, role, server, jobs, folder):
        done = os.path.join(folder, "done")
        said = run_client([program("muster-peers"), "--peer", self.peer, "--role", role, "--at", server.address, "--jobs", str(jobs),
                           "--done", done, *self.flags[role]])
        if role == "process":
            check_done([done], jobs)
        return said["ended"] - said["began"], said["cpu_us"]


class _Workers:
    """A peer whose workers are servers themselves: they work until they are told to end."""

    env = {}

    def __init__(self, workers):
        self.workers = workers

    def run(self, role, server, jobs, folder):
        if role == "enqueue":
            said = run_client(self.enqueue(server, jobs), self.env)
            return said["ended"] - said["began"], said["cpu_us"]
        files = [os.path.join(folder, f"done-{n}") for n in range(self.workers)]
        for file in filter(os.path.exists, files):
            os.remove(file)
        running = [self.start(server, jobs, file) for file in files]
        try:
            deadline = time.monotonic() + PHASE_S
            while self.left(server.client):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.left(server.client)} of {jobs} jobs are left after {PHASE_S} s")
                time.sleep(0.02)
        finally:
            for p in running:
                p.stop()
        # One that starts late may find nothing left to do, and be ended before it can say so.
        worked = [(p, file) for p, file in zip(running, files) if os.path.exists(file)]
        check_done([file for _, file in worked], jobs)
        said = [s for s in (_last_line(p.lines) for p, _ in worked) if s["began"]]
        return max(s["ended"] for s in said) - min(s["began"] for s in said), sum(s["cpu_us"] for s in said)


class BullMq(_Workers):
    """`concurrency`: jobs a worker has at a time."""

    def __init__(self, workers=1, batch=500, concurrency=50):
        super().__init__(workers)
        self.batch, self.concurrency = batch, concurrency
        self.env = {"NODE_PATH": MODULES}

    def check(self):
        if not shutil.which("node"):
            raise NotInstalled("no node")
        if not os.path.isdir(os.path.join(MODULES, "bullmq")):
            raise NotInstalled("no bullmq from npm")

    def version(self):
        with open(os.path.join(MODULES, "bullmq", "package.json"), encoding="utf-8") as f:
            return f"BullMQ {json.load(f)['version']}"

    def _command(self, role, server, jobs, done, size):
        return ["node", os.path.join(CLIENTS, "bullmq.js"), role, server.socket, str(jobs), done, str(size)]

    def enqueue(self, server, jobs):
        return self._command("enqueue", server, jobs, "-", self.batch)

    def start(self, server, jobs, done):
        return Process(self._command("process", server, jobs, done, self.concurrency), done + ".log", env=dict(os.environ, **self.env))

    def left(self, redis):
        return redis.llen("bull:jobs:wait") + redis.llen("bull:jobs:active")


class Sidekiq(_Workers):
    def __init__(self, workers=2, threads=10):
        super().__init__(workers)
        self.threads = threads
        # Ruby's compiler, where this Ruby has it.
        yjit = shutil.which("ruby") and subprocess.run(["ruby", "--yjit", "-e", ""], capture_output=True, check=False).returncode == 0
        self.env = {"RUBYOPT": "--yjit"} if yjit else {}

    def check(self):
        if not shutil.which("sidekiq"):
            raise NotInstalled("no sidekiq")

    def version(self):
        said = subprocess.run(["sidekiq", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return said + (" with YJIT" if self.env else "")

    def enqueue(self, server, jobs):
        return ["ruby", os.path.join(CLIENTS, "sidekiq.rb"), "enqueue", server.socket, str(jobs)]

    def start(self, server, jobs, done):
        env = dict(os.environ, **self.env, PEER_REDIS=server.socket, PEER_JOBS=str(jobs), PEER_DONE=done)
        command = ["sidekiq", "-c", str(self.threads), "-q", "default", "-e", "production", "-r", os.path.join(CLIENTS, "sidekiq.rb")]
        return Process(command, done + ".log", env=env)

    def left(self, redis):
        return redis.llen("queue:default")


class Row:
    """One system of the table."""

    def __init__(self, name, server, client, weight, durable, setting, product=False):
        self.name, self.server_name, self.client, self.product = name, server, client, product
        self.weight, self.durable, self.setting = weight, durable, setting
        self.server, self.missing = None, None

    def version(self):
        own = [self.client.version()] if hasattr(self.client, "version") else []
        return ", ".join([*own, self.server.version()])

    def round(self, jobs, folder):
        jobs = int(jobs * self.weight)
        if hasattr(self.server, "reset"):
            self.server.reset()
        before = processes.cpu_us([self.server.pid])
        enqueue, enqueue_cpu = self.client.run("enqueue", self.server, jobs, folder)
        process, process_cpu = self.client.run("process", self.server, jobs, folder)
        server_cpu = processes.cpu_us([self.server.pid]) - before
        return {"jobs_s": jobs / (enqueue + process), "enqueue_s": jobs / enqueue, "process_s": jobs / process,
                "cpu_s_per_100k": (server_cpu + enqueue_cpu + process_cpu) / jobs / 10,
                "cpu_s_per_100k_server": server_cpu / jobs / 10}


class MusterRow:
    """Muster itself, in the same turns."""

    name, product, missing = MUSTER, False, None
    durable = "every outcome committed in PostgreSQL (fsync) before the batch is closed"
    setting = "one dispatcher, one worker that answers for the devices; Redis AOF everysec"

    def __init__(self, installation, client, registered):
        self.path = QueuePath(installation, client, registered)

    def version(self):
        return subprocess.run([program("muster-worker"), "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def round(self, _jobs, _folder):
        done = self.path.round()
        cpu = sum(done["us"].values()) / 10
        return {"jobs_s": done["cmd_s"], "enqueue_s": None, "process_s": None, "cpu_s_per_100k": cpu, "cpu_s_per_100k_server": cpu}


SERVERS = {
    "redis everysec": lambda folder: queue_servers.Redis(folder, "everysec"),
    "redis always": lambda folder: queue_servers.Redis(folder, "always"),
    "postgres": queue_servers.Postgres,
    "jetstream": queue_servers.JetStream,
    "rabbitmq": queue_servers.RabbitMq,
    "beanstalkd": queue_servers.Beanstalkd,
}
# What a server needs beyond what Muster itself does.
PROGRAMS = {"jetstream": queue_servers.JetStream, "rabbitmq": queue_servers.RabbitMq, "beanstalkd": queue_servers.Beanstalkd}

EVERYSEC = "AOF, fsync every second: a crash of the machine loses up to a second"
ALWAYS = "AOF, fsync before every answer"


def systems():
    """In the order of the table. A round of the fast ones has more jobs (weight), or it would be over at once."""
    rows = [
        Row("BullMQ", "redis everysec", BullMq(), 0.5, EVERYSEC, "addBulk of 500, concurrency 50, removeOnComplete", True),
        Row("Sidekiq", "redis everysec", Sidekiq(), 0.5, EVERYSEC + "; what a dying worker holds is lost",
            "push_bulk of 1,000, 2 processes of 10 threads, no job log", True),
        Row("NATS JetStream", "jetstream", CClient("jetstream"), 2, "files, written at once, fsync every 2 minutes",
            "work-queue stream, async publish 4,000, pull 1,000, explicit acks", True),
        Row("RabbitMQ classic", "rabbitmq", CClient("rabbitmq", ["--window", "4000"], ["--window", "4000", "--batch", "500"]), 1,
            "durable queue, persistent messages, confirmed after fsync", "confirms, 4,000 on the way; prefetch 4,000, ack of 500", True),
        Row("RabbitMQ quorum", "rabbitmq", CClient("rabbitmq", ["--kind", "quorum"], ["--kind", "quorum"]), 1,
            "Raft log of one member, confirmed after fsync", "confirms, 2,000 on the way; prefetch 2,000, ack of 200", True),
        Row("beanstalkd", "beanstalkd", CClient("beanstalkd"), 1, "binlog, fsync every 50 ms", "-f 50; 100 commands on the way", True),
    ]
    for sync, durable in (("everysec", EVERYSEC), ("always", ALWAYS)):
        redis = f"redis {sync}"
        rows += [
            Row(f"Redis lists, {sync}", redis, CClient("redis-lists"), 3, durable,
                "C; LPUSH of 100, LMOVE and LREM a job, 2,000 on the way"),
            Row(f"Redis lists by script, {sync}", redis, CClient("redis-batches"), 3, durable,
                "C; LPUSH of 100, a Lua script takes 100, SREM of 100"),
            Row(f"Redis Streams, {sync}", redis, CClient("redis-streams"), 3, durable,
                "C; XADD, XREADGROUP and XACK of 200, 2,000 on the way"),
        ]
    keep = ["--kind", "keep"]
    return rows + [
        Row("SKIP LOCKED, delete", "postgres", CClient("skip-locked"), 3, "committed (fsync); nothing is kept of a job",
            "C; COPY of 10,000, DELETE of 5,000 in the worker's transaction, 2 workers"),
        Row("SKIP LOCKED, keep", "postgres", CClient("skip-locked", keep, keep), 1, "committed (fsync), outcomes too",
            "C; COPY of 10,000, UPDATE to take 5,000, UPDATE to complete them, 2 workers"),
    ]


class Servers:
    """Those that the rows need, each started once."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def get(self, name):
        if name in PROGRAMS and not brokers.have(PROGRAMS[name]):
            raise NotInstalled(f"no {os.path.basename(PROGRAMS[name].PROGRAM)}")
        if name not in self.running:
            folder = os.path.join(self.folder, name.replace(" ", "-"))
            self.running[name] = SERVERS[name](folder)
        return self.running[name]

    def stop(self):
        for server in self.running.values():
            server.stop()


def start(row, servers, progress):
    try:
        row.client.check()
        progress(f"{row.name}: starting {row.server_name}")
        row.server = servers.get(row.server_name)
    except NotInstalled as e:
        row.missing = f"not installed: {e}"


def measure(installation, client, registered, jobs, rounds, progress, only=None):
    """{name: {"jobs_s" (enqueued and completed), "enqueue_s", "process_s" (each phase alone), "cpu_s_per_100k" (server and
    clients), "cpu_s_per_100k_server": medians of the rounds; "to_muster": median over the rounds of its rate by Muster's;
    "product", "durable", "version", "setting", "rounds": [the same figures each]}, or {"missing": why it was not measured}}.
    `jobs` a round, more for fast systems; the first round is thrown away. `only`: names of peers."""
    servers, rows = Servers(os.path.join(installation.folder, "queues")), []
    os.makedirs(servers.folder)
    os.chmod(servers.folder, 0o711)
    try:
        rows = [r for r in systems() if not only or r.name in only]
        for row in rows:
            start(row, servers, progress)
        rows = [MusterRow(installation, client, registered), *rows]
        taken = {row.name: [] for row in rows if not row.missing}
        for n in range(rounds + 1):
            progress(f"queue path, round {n} of {rounds}")
            for row in rows:
                if not row.missing:
                    done = row.round(jobs, servers.folder)
                    if n:
                        taken[row.name].append(done)
        return {row.name: _result(row, taken) for row in rows}
    finally:
        servers.stop()
        for row in rows[:1]:
            if isinstance(row, MusterRow):
                row.path.stop()


def _result(row, taken):
    said = {"product": row.product, "durable": row.durable, "setting": row.setting}
    if row.missing:
        return {"missing": row.missing, **said}
    rounds = taken[row.name]
    out = {key: statistics.median(r[key] for r in rounds) if rounds[0][key] is not None else None for key in FIGURES}
    out["to_muster"] = statistics.median(r["jobs_s"] / m["jobs_s"] for r, m in zip(rounds, taken[MUSTER]))
    return {**out, **said, "version": row.version(), "rounds": rounds}


def best_product(results):
    """Name of the fastest product, or None."""
    known = [n for n, r in results.items() if r["product"] and "missing" not in r]
    return max(known, key=lambda n: results[n]["jobs_s"], default=None)


def goals(results):
    """[(what, measured, wanted at least)], of ratios taken round by round."""
    def ratio(other):
        pairs = zip(results[MUSTER]["rounds"], results[other]["rounds"])
        return statistics.median(m["jobs_s"] / o["jobs_s"] for m, o in pairs)
    wanted = [(best_product(results), 10.0), (LISTS, 2.0)]
    return [(f"{MUSTER} / {name}", ratio(name), least) for name, least in wanted if name and "rounds" in results.get(name, ())]
