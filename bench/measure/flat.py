"""Cost per command over the size of the batch: the queue path for batches of 1,000 to 1,000,000 of the registered devices.

A batch costs a fixed part (transactions, round trips, timers) and a part per command; both are fitted over all sizes, by
component. What is left beyond them, and whether the part per command grows with the size, is said by a slope: least squares
of µs per command, the fixed part taken off, over log10(devices)."""
import os
import statistics
import time

COMPONENTS = ("dispatcher", "worker", "redis", "pg")
SIZES = (1000, 3000, 10000, 30000, 100000, 300000, 1000000)
# Commands of one size altogether: small batches are many, so that what is measured is long against the clock's grain.
COMMANDS = 300000
BATCHES_MAX = 40


def _run(installation, client, group, size, count):
    """`count` batches one after another. {"us": {component: µs per batch}, "seconds": per batch}"""
    s, pb = installation.stack, installation.stack.pb
    target = pb.Target(all=True) if group is None else pb.Target(groups=pb.GroupNames(names=[group]))
    meter, seconds = installation.meter(), []
    for _ in range(count):
        began = time.monotonic()
        batch = s.submit(client, target=target).batch
        if batch.device_count != size:
            raise AssertionError(f"a batch to {size} devices addresses {batch.device_count}")
        closed = installation.wait_closed(client, batch.id)
        waited = time.monotonic() - began
        installation.succeeded(closed)
        # By the database, as in queue_path.py: a watcher hears of the end some milliseconds later.
        (ms,), = installation.query("SELECT closed_ms - created_ms FROM batch WHERE id = %s", batch.id)
        seconds.append(min(waited, max(float(ms), 1.0) / 1e3))
    used = meter.read()
    return {"us": {name: used[name] / count for name in COMPONENTS}, "seconds": statistics.median(seconds)}


def _line(xs, ys, weights):
    """Weighted least squares: (at 0, slope)."""
    total = sum(weights)
    x, y = (sum(w * v for w, v in zip(weights, vs)) / total for vs in (xs, ys))
    slope = sum(w * (a - x) * (b - y) for w, a, b in zip(weights, xs, ys)) / sum(w * (a - x) ** 2
                                                                                  for w, a in zip(weights, xs))
    return y - slope * x, slope


def _fit(sizes, us_per_batch):
    """Fixed µs a batch, µs a command, and how that changes with each tenfold size."""
    from math import log10
    # Errors are shares of the value, so every size weighs the same.
    fixed, each = _line(sizes, us_per_batch, [1 / u ** 2 for u in us_per_batch])
    rest = [(u - fixed) / n for u, n in zip(us_per_batch, sizes)]
    _, slope = _line([log10(n) for n in sizes], rest, [n ** 0.5 for n in sizes])
    return {"fixed_us": fixed, "us_per_cmd": each, "slope_us_per_decade": slope}


def measure(installation, client, ids, rounds, progress):
    """`ids` are all devices of the tenant, in the order of their seq; a worker that answers for them is up."""
    sizes, pb = [n for n in SIZES if n <= len(ids)], installation.stack.pb
    for n in sizes:
        if n < len(ids):
            client.devices.CreateGroup(pb.CreateGroupRequest(name=f"first-{n}", device_ids=ids[:n]))
    points = {n: [] for n in sizes}
    for k in range(rounds + 1):
        for n in sizes:
            progress(f"cost over size, round {k} of {rounds}: {n:,} devices")
            count = max(1, min(BATCHES_MAX, COMMANDS // n))
            point = _run(installation, client, None if n == len(ids) else f"first-{n}", n, count if k else 1)
            if k:
                points[n].append(point)
    out = {"sizes": sizes, "rate": [], "us_per_cmd": {c: [] for c in (*COMPONENTS, "all")}, "fit": {}}
    per_batch = {c: [] for c in (*COMPONENTS, "all")}
    for n in sizes:
        out["rate"].append(n / statistics.median(p["seconds"] for p in points[n]))
        for c in COMPONENTS:
            per_batch[c].append(statistics.median(p["us"][c] for p in points[n]))
        per_batch["all"].append(statistics.median(sum(p["us"].values()) for p in points[n]))
    for c, values in per_batch.items():
        out["us_per_cmd"][c] = [v / n for v, n in zip(values, sizes)]
        out["fit"][c] = _fit(sizes, values)
    return {"flat": out}


def table(flat):
    lines = ["", "Queue path by size of the batch, µs of CPU per command",
             "  devices   commands/s" + "".join(f"{c:>12}" for c in (*COMPONENTS, "all"))]
    for i, n in enumerate(flat["sizes"]):
        lines.append(f"  {n:>9,}{flat['rate'][i]:>11,.0f}" +
                     "".join(f"{flat['us_per_cmd'][c][i]:>12.3f}" for c in (*COMPONENTS, "all")))
    for label, key, form in (("fixed, µs a batch", "fixed_us", "{:,.0f}"), ("µs a command", "us_per_cmd", "{:.3f}"),
                             ("slope, µs a decade", "slope_us_per_decade", "{:+.3f}")):
        lines.append(f"  {label:<20}" + "".join(f"{form.format(flat['fit'][c][key]):>12}" for c in (*COMPONENTS, "all")))
    lines.append("  The slope is that of the part per command: what a command costs more for ten times the devices.")
    return "\n".join(lines)


def plot(flat, path):
    """Writes an SVG; False without matplotlib (python3-matplotlib)."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot
    figure, (cost, rate) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    for c in (*COMPONENTS, "all"):
        cost.plot(flat["sizes"], flat["us_per_cmd"][c], marker="o", label="PostgreSQL" if c == "pg" else c)
    fit = flat["fit"]["all"]
    cost.plot(flat["sizes"], [us - fit["fixed_us"] / n for us, n in zip(flat["us_per_cmd"]["all"], flat["sizes"])],
              linestyle="--", color="gray", label="all, without what a batch costs")
    cost.set(xscale="log", yscale="log", xlabel="devices in the batch", ylabel="CPU µs per command",
             title=f"{fit['us_per_cmd']:.2f} µs a command, {fit['slope_us_per_decade']:+.3f} for ten times the devices")
    cost.grid(True, which="both", alpha=0.3)
    cost.legend()
    rate.plot(flat["sizes"], flat["rate"], marker="o")
    rate.set(xscale="log", yscale="log", xlabel="devices in the batch", ylabel="commands/s",
             title="one batch at a time, accepted to durable outcome")
    rate.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return True
