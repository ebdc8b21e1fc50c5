"""The tables of `make bench-scale`, and its file of results, which keeps what earlier runs have measured in other modes."""
import json
import os

from . import report

GOAL_S = {"openssl": 7, "lean": 5}
GOAL_RSS = {"openssl": 14500, "lean": 1024, "plain": 400}


IDLE = ("CPU while nothing happens, of each second ({idle_pings_s:,.0f} keepalives in it)", [
    ("workers together", "idle_worker_us_s", "{:,.0f} µs", None),
    ("dispatcher", "idle_dispatcher_us_s", "{:,.0f} µs", None),
    ("Redis", "idle_redis_us_s", "{:,.0f} µs", None),
    ("PostgreSQL", "idle_pg_us_s", "{:,.0f} µs", None),
])

OPEN = [
    ("{registered:,} registered devices, {devices:,} connected (plain MQTT), {batches} open batches to all", [
        ("SubmitBatch", "open_accept_ms", "{:,.1f} ms", None),
        ("Redis per open command", "open_redis_bytes", "{:,.2f} bytes", ("max", 6)),
        ("PostgreSQL per open command", "open_pg_bytes", "{:,.2f} bytes", ("max", 8)),
    ]),
    ("A device comes back, {batches} commands open for it", [
        ("attach, Redis time p50", "attach_p50_us", "{:,.0f} µs", None),
        ("attach, Redis time p99", "attach_p99_us", "{:,.0f} µs", ("max", 1000)),
        ("attach, Redis time longest", "attach_max_us", "{:,.0f} µs", None),
        ("Redis CPU, leaving and coming back", "return_redis_us", "{:,.0f} µs", None),
        ("worker CPU, leaving and coming back", "return_worker_us", "{:,.0f} µs", None),
    ]),
    ("All of them connect, {batches} commands open for each", [
        ("all connected after", "storm_s", "{:,.1f} s", None),
        ("rate", "storm_rate", "{:,.0f} devices/s", None),
        ("Redis CPU per device", "storm_redis_us", "{:,.0f} µs", None),
        ("worker CPU per device", "storm_worker_us", "{:,.0f} µs", None),
        ("longest script", "storm_longest_us", "{:,.0f} µs", None),
        ("worker RSS per device", "storm_worker_rss_bytes", "{:,.0f} bytes", None),
        ("faults", "fault_count", "{:,.0f}", ("max", 0)),
    ]),
    ("One worker restarts, {restart_devices:,.0f} devices leave and return", [
        ("drained after", "restart_drain_s", "{:,.1f} s", None),
        ("all back after", "restart_s", "{:,.1f} s", None),
        ("Redis CPU per device", "restart_redis_us", "{:,.0f} µs", None),
        ("longest script", "restart_longest_us", "{:,.0f} µs", None),
    ]),
]


def sections(mode):
    """Like report.TABLE."""
    if mode == "open":
        return OPEN + [IDLE]
    goal_s, goal_rss = GOAL_S.get(mode), GOAL_RSS[mode]
    return [
        ("{devices:,} devices ({mode}), {workers} workers: connecting", [
            ("all connected after", "connect_s", "{:,.1f} s", None),
            ("rate", "connect_s_rate", "{:,.0f} devices/s", None),
            ("worker CPU per device", "connect_worker_us", "{:,.0f} µs", None),
            ("simulator CPU per device", "connect_fleet_us", "{:,.0f} µs", None),
            ("Redis CPU per device", "connect_redis_us", "{:,.1f} µs", None),
            ("faults", "fault_count", "{:,.0f}", ("max", 0)),
        ]),
        ("Memory per idle device", [
            ("worker, RSS", "worker_rss_bytes", "{:,.0f} bytes", ("max", goal_rss)),
            ("worker, PSS", "worker_pss_bytes", "{:,.0f} bytes", None),
            ("simulator, PSS", "fleet_pss_bytes", "{:,.0f} bytes", None),
            ("kernel, both ends", "kernel_bytes", "{:,.0f} bytes", None),
        ]),
        IDLE,
        ("One command to all", [
            ("the first one", "first_s", "{:,.2f} s", None),
            ("submit → last durable outcome", "all_s", "{:,.2f} s", ("max", goal_s) if goal_s else None),
            ("rate", "all_cmd_s", "{:,.0f} commands/s", None),
            ("SubmitBatch", "accept_ms", "{:,.1f} ms", None),
            ("push → ack p50", "push_ack_p50_ms", "{:,.1f} ms", None),
            ("push → ack p99", "push_ack_p99_ms", "{:,.1f} ms", None),
            ("submit → push p50", "submit_push_p50_ms", "{:,.0f} ms", None),
            ("submit → push p99", "submit_push_p99_ms", "{:,.0f} ms", None),
        ]),
        ("CPU per command", [
            ("worker", "worker_us_per_cmd", "{:,.2f} µs", None),
            ("simulator", "fleet_us_per_cmd", "{:,.2f} µs", None),
            ("Redis", "redis_us_per_cmd", "{:,.2f} µs", None),
            ("PostgreSQL", "pg_us_per_cmd", "{:,.2f} µs", None),
            ("dispatcher", "dispatcher_us_per_cmd", "{:,.2f} µs", None),
            ("together", "all_us_per_cmd", "{:,.2f} µs", None),
            ("of the machine's cores they had", "cores_used", "{:,.2f}", None),
        ]),
        ("The floor with as many", [
            ("one exchange with all", "floor_s", "{:,.2f} s", None),
            ("core / floor, rate", "core_to_floor", "{:.2f}", None),
            ("CPU of one: server", "floor_server_us_per_cmd", "{:,.2f} µs", None),
            ("simulator", "floor_fleet_us_per_cmd", "{:,.2f} µs", None),
            ("floor / core, CPU of all", "floor_to_core_us", "{:.2f}", None),
            ("server, RSS per idle connection", "floor_rss_bytes", "{:,.0f} bytes", None),
        ]),
    ]


def table(mode, results):
    text = report.table(results, sections(mode))
    return text + "".join(f"\n  {name}: {n:,.0f}" for name, n in results["faults"].items())


def merge(mode, results, path):
    """Writes the results under their mode, beside those of other modes that the file has."""
    whole = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            whole = json.load(f)
    report.write(whole | {mode: report.circumstances() | results}, path)
