"""What Muster is measured beside: clients that lose a job, or do one twice, would measure nothing; nor would a table that hides
a miss."""
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from harness.daemons import program
from harness.patience import patient
from harness.stubs import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))

from measure import chart, peers_queue, report_peers  # noqa: E402

JOBS = 3000
SVG = "{http://www.w3.org/2000/svg}"


def run(tmp_path, peer, role, at, *flags):
    """A CompletedProcess, and the file of a processing client: a byte a job."""
    done = tmp_path / "done"
    command = [program("muster-peers"), "--peer", peer, "--role", role, "--at", at, "--jobs", str(JOBS), "--done", str(done), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=patient(60), check=False), done


def enqueue_and_process(tmp_path, peer, at, *flags):
    for role in ("enqueue", "process"):
        ended, done = run(tmp_path, peer, role, at, *flags)
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert said["ended"] > said["began"] > 0 and said["cpu_us"] > 0
        if role == "enqueue":
            yield
    assert done.read_bytes() == b"\1" * JOBS
    yield


@pytest.mark.parametrize("peer,working", [("redis-lists", "list"), ("redis-batches", "set")])
def test_lists_complete_every_job_once(tmp_path, redis_server, peer, working):
    redis = redis_server.client()
    phases = enqueue_and_process(tmp_path, peer, "unix:" + redis_server.socket)
    next(phases)
    jobs = redis.lrange("queue", 0, -1)
    assert len(set(jobs)) == len(jobs) == JOBS
    next(phases)
    assert redis.dbsize() == 0, f"the queue and the {working} of what is being worked on are not empty: {redis.keys()}"


def test_streams_complete_every_job_once(tmp_path, redis_server):
    redis = redis_server.client()
    phases = enqueue_and_process(tmp_path, "redis-streams", "unix:" + redis_server.socket)
    next(phases)
    assert redis.xlen("stream") == JOBS
    next(phases)
    group, = redis.xinfo_groups("stream")
    assert group["pending"] == 0 and group["entries-read"] == JOBS


@pytest.mark.parametrize("kind,left", [("delete", []), ("keep", [(2, JOBS)])])
def test_skip_locked_completes_every_job_once(tmp_path, postgres, kind, left):
    """Batches smaller than the jobs by far, so that two workers take from each other's."""
    name = postgres.create_database("queue")
    db = postgres.connect(name).cursor()
    phases = enqueue_and_process(tmp_path, "skip-locked", postgres.conninfo(name), "--kind", kind, "--batch", "100", "--window", "3")
    next(phases)
    db.execute("SELECT count(*), count(DISTINCT payload) FROM job")
    assert db.fetchone() == (JOBS, JOBS)
    next(phases)
    db.execute("SELECT count(*) FROM job" if kind == "delete" else "SELECT state, count(*) FROM job GROUP BY 1")
    assert db.fetchall() == (left or [(0,)])
    db.connection.close()
    postgres.drop_database(name)


@pytest.mark.parametrize("peer,take", [("redis-lists", ("lpop", "queue")), ("redis-batches", ("lpop", "queue", 200))])
def test_a_lost_job_is_not_measured_over(tmp_path, redis_server, peer, take):
    at = "unix:" + redis_server.socket
    assert run(tmp_path, peer, "enqueue", at)[0].returncode == 0
    redis_server.client().execute_command(*take)
    ended, _ = run(tmp_path, peer, "process", at)
    assert ended.returncode == 1 and "a job is missing" in ended.stderr and not ended.stdout


def test_strange_jobs_and_wrong_flags_are_named(tmp_path, redis_server):
    redis_server.client().lpush("queue", "something else")
    ended, _ = run(tmp_path, "redis-lists", "process", "unix:" + redis_server.socket)
    assert ended.returncode == 1 and '"something else" is no job of the 3000' in ended.stderr
    ended, _ = run(tmp_path, "kafka", "process", "127.0.0.1:1")
    assert ended.returncode == 1 and "--peer kafka" in ended.stderr
    ended, _ = run(tmp_path, "beanstalkd", "process", "nowhere")
    assert ended.returncode == 1 and "--at nowhere" in ended.stderr


def test_lost_and_repeated_jobs_are_found(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"\1\0\1\0")
    two.write_bytes(b"\0\1\0\1")
    peers_queue.check_done([one, two], 4)
    two.write_bytes(b"\0\1\1\0")
    with pytest.raises(AssertionError, match="of 4 jobs 1 were not completed and 1 more than once"):
        peers_queue.check_done([one, two], 4)


def test_what_is_not_installed_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_queue.brokers, "have", lambda broker: False)
    monkeypatch.setattr(peers_queue.shutil, "which", lambda name: None)
    rows = [row for row in peers_queue.systems() if row.product]
    for row in rows:
        peers_queue.start(row, peers_queue.Servers(str(tmp_path)), progress=str)
    assert {row.name: row.missing for row in rows} == {
        "BullMQ": "not installed: no node", "Sidekiq": "not installed: no sidekiq", "NATS JetStream": "not installed: no nats-server",
        "RabbitMQ classic": "not installed: no rabbitmq-server", "RabbitMQ quorum": "not installed: no rabbitmq-server",
        "beanstalkd": "not installed: no beanstalkd"}


def queue_results(muster, jetstream):
    """Made up: two rounds each."""
    def row(rates, **more):
        rounds = [{"jobs_s": r, "enqueue_s": None, "process_s": None, "cpu_s_per_100k": 1e4 / r, "cpu_s_per_100k_server": 1.0}
                  for r in rates]
        return {**rounds[0], "to_muster": rates[0] / muster[0], "durable": "yes", "setting": "", "version": "1", "product": False,
                "rounds": rounds, **more}
    return {"Muster": row(muster), "NATS JetStream": row(jetstream, product=True), "beanstalkd": row([9, 9], product=True),
            "RabbitMQ quorum": {"missing": "not installed: no rabbitmq-server", "product": True, "durable": "yes", "setting": ""},
            "Redis lists, everysec": row([400_000, 400_000])}


def test_goals_are_ratios_of_rounds_to_the_best_product():
    goals = peers_queue.goals(queue_results([900_000, 1_000_000], [100_000, 80_000]))
    assert goals == [("Muster / NATS JetStream", (9 + 12.5) / 2, 10.0), ("Muster / Redis lists, everysec", 2.375, 2.0)]


def test_table_says_what_is_missing_and_missed():
    text = report_peers.table({"queue": queue_results([800_000, 800_000], [100_000, 100_000]), "devices": 1})
    lines = {line.split("  ")[1]: line for line in text.splitlines() if line.startswith("  ")}
    assert "800,000" in lines["Muster"] and "1.000" in lines["Muster"]
    assert lines["RabbitMQ quorum"].endswith("not installed: no rabbitmq-server")
    assert lines["Muster / NATS JetStream: 8.00"].endswith("wanted ≥ 10: MISSED")
    assert lines["Muster / Redis lists, everysec: 2.00"].endswith("wanted ≥ 2: met")


def test_plots_show_every_system_that_was_measured(tmp_path):
    paths = report_peers.plots({"queue": queue_results([800_000, 800_000], [100_000, 100_000])}, str(tmp_path))
    assert [os.path.basename(p) for p in paths] == ["peers-queue-rate.svg", "peers-queue-cpu.svg"]
    tree = ElementTree.parse(paths[0]).getroot()
    texts = [t.text for t in tree.iter(SVG + "text")]
    assert "jobs/s enqueued and completed, more is better, logarithmic" in texts
    names = [t for t in texts if t in ("Muster", "NATS JetStream", "beanstalkd", "Redis lists, everysec", "RabbitMQ quorum")]
    assert names == ["Muster", "Redis lists, everysec", "NATS JetStream", "beanstalkd"]
    lengths = [float(r.get("width")) for r in tree.iter(SVG + "rect")][1:]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] > 0
    assert "800,000" in texts and "9" in texts and "1" in texts and "1,000,000" in texts


@pytest.mark.parametrize("values,logarithmic", [([3.0, 5.0], False), ([1.0, 19.0], False), ([0.05, 16.0], True), ([1.0], False),
                                                ([1000.0, 1_000_000.0], True)])
def test_axis_has_room_for_every_value(values, logarithmic):
    axis = chart.scale(values)
    assert axis[2] == logarithmic
    assert all(0 < chart.position(v, axis) <= 1 for v in values)
    assert 2 <= len(chart.ticks(axis)) <= 8


def test_figures_keep_three_digits():
    assert [chart.figure(v) for v in (0.0594, 1.2345, 999, 1234, 96_800, 1_024_321)] == ["0.0594", "1.23", "999", "1,230", "96,800", "1,020,000"]
