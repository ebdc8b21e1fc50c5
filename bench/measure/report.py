"""The table on the terminal and bench/results/core.json."""
import json
import os
import platform
import time

# (title, [(label, key, format, bound or None)]); a bound is ("max" or "min", value) or ("ratio" of another key).
TABLE = [
    ("Accept, {registered:,} registered devices", [
        ("SubmitBatch, durable", "accept_300k_ms", "{:,.1f} ms", ("max", 50)),
        ("validate_only", "validate_300k_ms", "{:,.1f} ms", ("max", 50)),
        ("CancelBatch", "cancel_300k_ms", "{:,.1f} ms", ("max", 50)),
        ("Redis per queued command", "redis_bytes_per_queued_cmd", "{:,.2f} bytes", ("max", 6)),
        ("PostgreSQL per queued command", "pg_bytes_per_queued_cmd", "{:,.2f} bytes", ("max", 8)),
    ]),
    ("Core path over TLS, {devices:,} connected devices", [
        ("submit → last persisted ack", "core_cmd_s", "{:,.0f} commands/s", None),
        ("floor, same simulator", "floor_cmd_s", "{:,.0f} commands/s", None),
        ("core / floor", "core_to_floor", "{:.2f}", ("min", 0.75)),
        ("push → ack p50", "push_ack_p50_ms", "{:,.2f} ms", None),
        ("push → ack p99", "push_ack_p99_ms", "{:,.2f} ms", None),
        ("push → ack p99.9", "push_ack_p999_ms", "{:,.2f} ms", None),
        ("submit → push p50", "submit_push_p50_ms", "{:,.2f} ms", None),
        ("submit → push p99", "submit_push_p99_ms", "{:,.2f} ms", None),
        ("submit → push p99.9", "submit_push_p999_ms", "{:,.2f} ms", None),
        ("worker memory per idle device", "worker_rss_per_conn", "{:,.0f} bytes", ("max", 14848)),
    ]),
    ("Core path at half that rate, steadily", [
        ("acknowledged", "half_load_cmd_s", "{:,.0f} commands/s", None),
        ("push → ack p50", "half_load_push_ack_p50_ms", "{:,.2f} ms", None),
        ("push → ack p99", "half_load_push_ack_p99_ms", "{:,.2f} ms", ("max", 20)),
        ("push → ack p99.9", "half_load_push_ack_p999_ms", "{:,.2f} ms", None),
        ("submit → push p99", "half_load_submit_push_p99_ms", "{:,.2f} ms", None),
    ]),
    ("CPU per command, core path", [
        ("dispatcher", "dispatcher_us_per_cmd", "{:,.2f} µs", None),
        ("worker", "worker_us_per_cmd", "{:,.2f} µs", None),
        ("Redis", "redis_us_per_cmd", "{:,.2f} µs", ("max", 1)),
        ("PostgreSQL", "pg_us_per_cmd", "{:,.2f} µs", ("max", 0.3)),
        ("simulator", "fleet_us_per_cmd", "{:,.2f} µs", None),
        ("floor: server", "floor_server_us_per_cmd", "{:,.2f} µs", None),
        ("floor: simulator", "floor_fleet_us_per_cmd", "{:,.2f} µs", None),
    ]),
    ("The same with lean TLS records", [
        ("submit → last persisted ack", "lean_core_cmd_s", "{:,.0f} commands/s", None),
        ("core / floor (OpenSSL's records)", "lean_core_to_floor", "{:.2f}", ("min", 0.75)),
        ("half that rate: push → ack p99", "lean_half_load_push_ack_p99_ms", "{:,.2f} ms", ("max", 20)),
        ("worker", "lean_worker_us_per_cmd", "{:,.2f} µs", None),
        ("simulator", "lean_fleet_us_per_cmd", "{:,.2f} µs", None),
        ("worker memory per idle device", "lean_worker_rss_per_conn", "{:,.0f} bytes", ("max", 1024)),
    ]),
    ("A worker goes, its devices come back at another", [
        ("full handshake: worker CPU", "reconnect_full_worker_us", "{:,.0f} µs", None),
        ("resumed: worker CPU", "reconnect_resumed_worker_us", "{:,.0f} µs", None),
        ("resumed / full", "reconnect_resumed_to_full", "{:.2f}", None),
        ("full: back again", "reconnect_full_s", "{:,.0f} devices/s", None),
        ("resumed: back again", "reconnect_resumed_s", "{:,.0f} devices/s", None),
    ]),
    ("Queue path, {registered:,} devices, no sockets", [
        ("submit → closed", "queue_cmd_s", "{:,.0f} commands/s", ("min", 1000000)),
        ("dispatcher", "queue_dispatcher_us_per_cmd", "{:,.3f} µs", None),
        ("worker", "queue_worker_us_per_cmd", "{:,.3f} µs", None),
        ("Redis", "queue_redis_us_per_cmd", "{:,.3f} µs", ("max", 1)),
        ("PostgreSQL", "queue_pg_us_per_cmd", "{:,.3f} µs", ("max", 0.3)),
    ]),
    ("Small batches: one device each, over gRPC and TLS, durable when answered", [
        ("as fast as answered", "submit_per_s", "{:,.0f} submits/s", ("min", 5000)),
        ("latency at 2,500/s p50", "submit_p50_ms", "{:,.2f} ms", None),
        ("latency at 2,500/s p99", "submit_p99_ms", "{:,.2f} ms", ("max", 20)),
        ("latency at 2,500/s p99.9", "submit_p999_ms", "{:,.2f} ms", None),
        ("CPU at 2,500/s: dispatcher", "submit_dispatcher_us", "{:,.1f} µs", None),
        ("PostgreSQL", "submit_pg_us", "{:,.1f} µs", None),
        ("Redis", "submit_redis_us", "{:,.1f} µs", None),
        ("worker", "submit_worker_us", "{:,.1f} µs", None),
        ("generator", "submit_generator_us", "{:,.1f} µs", None),
        ("latency at 5,000/s p99", "submit_goal_p99_ms", "{:,.2f} ms", None),
        ("submit → closed at 5,000/s p50", "submit_goal_closing_p50_ms", "{:,.0f} ms", None),
        ("submit → closed at 5,000/s p99", "submit_goal_closing_p99_ms", "{:,.0f} ms", None),
        ("left to close after the last", "submit_goal_behind_s", "{:,.2f} s", None),
        ("dispatcher memory grown", "submit_dispatcher_growth", "{:,.0f} bytes", None),
    ]),
    ("Trickle, one ack per block and batch", [
        ("PostgreSQL CPU per ack", "trickle_pg_us_per_ack", "{:,.2f} µs", ("max", 6)),
        ("WAL per ack", "trickle_wal_bytes_per_ack", "{:,.0f} bytes", ("max", 500)),
        ("Redis CPU per ack", "trickle_redis_us_per_ack", "{:,.2f} µs", None),
    ]),
]


def met(value, bound):
    return value <= bound[1] if bound[0] == "max" else value >= bound[1]


def _row(label, value, form, bound):
    shown = form.format(value)
    if bound is None:
        return f"  {label:<32}{shown:>24}"
    sign = "≤" if bound[0] == "max" else "≥"
    return f"  {label:<32}{shown:>24}   wanted {sign} {bound[1]:,}: {'met' if met(value, bound) else 'MISSED'}"


def table(results, sections=None):
    """The whole table as text; rows without a figure are left out. `sections` is shaped like TABLE."""
    lines = []
    for title, rows in sections or TABLE:
        found = [(label, results[key], form, bound) for label, key, form, bound in rows if results.get(key) is not None]
        if found:
            lines += ["", title.format(**results), *[_row(*row) for row in found]]
    return "\n".join(lines)


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())


def circumstances():
    """When and on what something was measured."""
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cpus": os.cpu_count(), "processor": _processor(),
            "kernel": platform.release()}


def write(whole, path):
    """As JSON; atomic."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(whole, f, indent=2, ensure_ascii=False)
        f.write("\n")
    os.replace(path + ".new", path)


def save(results, path):
    """Writes the results with what they were measured on."""
    write(circumstances() | results, path)
