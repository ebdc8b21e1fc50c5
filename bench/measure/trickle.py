"""Acknowledgements that come one per block and batch: one device in each block, many batches waiting for it. The devices
connect when all is queued and answer one batch after the other, so accepting and routing are not in the figures."""
import time

# Devices of a block; one in each block connects.
BLOCK = 1024


def measure(installation, client, ids, batches, progress):
    """`ids` are the registered devices in the order of their seq; none is connected."""
    s, pb = installation.stack, installation.stack.pb
    chosen = ids[::BLOCK]
    tokens = s.tokens(client, chosen)
    progress(f"trickle: {batches} batches to one device in each of {len(chosen)} blocks")
    queued = [s.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=chosen))).batch.id for _ in range(batches)]
    installation.wait_batches("routed_ms", queued)
    time.sleep(1.0)  # what accepting and routing leave to the background is done
    wanted = len(chosen) * batches
    wal, meter = installation.wal_bytes(), installation.meter()
    began = time.monotonic()
    fleet = s.start_fleet(tokens, "--quiet", wait=False)
    while (stats := fleet.stats())["acked"] < wanted:
        if time.monotonic() - began > 120:
            raise AssertionError(f"trickle: {stats['acked']} of {wanted} acknowledgements after 120 s")
        time.sleep(0.1)
    installation.wait_batches("closed_ms", queued)
    used, wal = meter.read(), installation.wal_bytes() - wal
    fleet.quit()
    return {
        "trickle_acks": wanted,
        "trickle_seconds": time.monotonic() - began,
        "trickle_pg_us_per_ack": used["pg"] / wanted,
        "trickle_redis_us_per_ack": used["redis"] / wanted,
        "trickle_wal_bytes_per_ack": wal / wanted,
    }
