"""Acknowledgements that come one per block and batch: each batch addresses one device in each block, and many such batches
wait, for different devices. These connect when all is queued and answer on a signal, so accepting, routing and connecting are
not in the figures."""
import time

BLOCK = 1024

# Different devices of each block; the batches address them in turn.
SLOTS = 8


def measure(installation, client, ids, batches, progress):
    """`ids` are the registered devices in the order of their seq; none is connected."""
    s, pb = installation.stack, installation.stack.pb
    groups = [ids[slot::BLOCK] for slot in range(SLOTS)]
    tokens = s.tokens(client, [i for group in groups for i in group])
    progress(f"trickle: {batches} batches, each to one device in each of {len(groups[0])} blocks")
    queued, wanted = [], 0
    for n in range(batches):
        target = groups[n % SLOTS]
        queued.append(s.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=target))).batch.id)
        wanted += len(target)
    installation.wait_batches("routed_ms", queued)
    fleet = s.start_fleet(tokens, "--quiet", "--hold")
    while fleet.stats()["received"] < len(tokens):
        time.sleep(0.1)
    time.sleep(3.0)  # that the first commands are SENT is recorded after a second
    wal, meter = installation.wal_bytes(), installation.meter()
    began = time.monotonic()
    fleet.popen.stdin.write(b"go\n")
    fleet.popen.stdin.flush()
    while (stats := fleet.stats())["acked"] < wanted:
        if time.monotonic() - began > 120:
            raise AssertionError(f"trickle: {stats['acked']} of {wanted} acknowledgements after 120 s")
        time.sleep(0.1)
    installation.wait_batches("closed_ms", queued)
    seconds = time.monotonic() - began
    used, wal = meter.read(), installation.wal_bytes() - wal
    fleet.quit()
    return {
        "trickle_acks": wanted,
        "trickle_seconds": seconds,
        "trickle_pg_us_per_ack": used["pg"] / wanted,
        "trickle_redis_us_per_ack": used["redis"] / wanted,
        "trickle_wal_bytes_per_ack": wal / wanted,
    }
