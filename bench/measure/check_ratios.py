"""A short core and queue path at full speed, in turns with the floor: CPU time per command, relative to the floor's."""
from .installation import Installation
from .sockets import Core, Floor

COMPONENTS = ("dispatcher", "worker", "redis", "pg")


def _import(stack, name, count):
    """(client, ids) of a new tenant with so many devices."""
    client = stack.client(stack.make_tenant(name), timeout=120)
    ids = [f"{name}-{n:06d}" for n in range(count)]
    stack.import_devices(client, ids)
    return client, ids


def _least(rounds):
    """What disturbs a round only ever adds to it: the least of several is the steadiest."""
    return {name: min(r[name] for r in rounds) for name in rounds[0]}


def _core(installation, devices, rounds, progress):
    s = installation.stack
    client, ids = _import(s, "connected", devices)
    progress(f"core path and floor, {devices:,} devices over TLS, in turns")
    core = Core(installation, client, s.tokens(client, ids))
    floor = Floor(s.certificates, devices, 1)
    try:
        floors, cores = [], []
        for _ in range(rounds + 1):
            floors.append({"floor": floor.round()["server_us"]})
            cores.append(core.round()["us"])
    finally:
        floor.stop()
    core.fleet.quit()
    return _least(cores[1:]), _least(floors[1:])["floor"]


def _queue(installation, registered, rounds, progress):
    s = installation.stack
    client, _ = _import(s, "registered", registered)
    for w in s.workers:
        w.stop()
    s.workers.clear()
    s.start_worker("--answer-self")
    progress(f"queue path, {registered:,} devices")
    costs = []
    for _ in range(rounds + 1):
        meter = installation.meter()
        installation.wait_batches("closed_ms", [s.submit(client).batch.id])
        costs.append({name: us / registered for name, us in meter.read().items()})
    return _least(costs[1:])


def measure(registered, devices, rounds, progress):
    """{figure: share of what the floor's server takes for a command}"""
    with Installation(2) as i:
        core, floor = _core(i, devices, rounds, progress)
        queue = _queue(i, registered, rounds, progress)
    out = {"core_worker_to_floor": core["worker"] / floor,
           "core_stores_to_floor": sum(core[name] for name in ("dispatcher", "redis", "pg")) / floor,
           "queue_all_to_floor": sum(queue[name] for name in COMPONENTS) / floor}
    progress(f"floor {floor:.2f} µs, worker {core['worker']:.2f} µs; queue path "
             f"{sum(queue[name] for name in COMPONENTS):.3f} µs a command")
    return out
