"""The SQL functions that show the packed state as rows, against the same arithmetic in Python."""
import glob
import os
import random
import struct

import pytest
from harness.stubs import ROOT

NAMES = ("NONE HELD QUEUED ROUTED SENT SUCCEEDED FAILED REJECTED TIMED_OUT EXPIRED CANCELED SUPERSEDED").split()
QUEUED, FIRST_TERMINAL = 2, 5
DEVICES, CREATED_MS = 4000, 1_000_000


@pytest.fixture(scope="module")
def database(postgres):
    name = postgres.create_database()
    db = postgres.connect(name)
    db.autocommit = True
    with db.cursor() as cursor:
        for path in sorted(glob.glob(os.path.join(ROOT, "schema/postgres/*.sql"))):
            with open(path, encoding="utf-8") as file:
                cursor.execute(file.read())
        cursor.execute("INSERT INTO tenant (name, created_ms) VALUES ('t', 0) RETURNING id")
        tenant = cursor.fetchone()[0]
        cursor.execute("INSERT INTO device (tenant_id, seq, id, platform, created_ms)"
                       " SELECT %s, i, 'd' || i, 1, 0 FROM generate_series(0, %s) AS i", (tenant, DEVICES - 1))
        yield cursor, tenant
    db.close()
    postgres.drop_database(name)


def make_batch(cursor, tenant, request):
    cursor.execute("INSERT INTO batch (tenant_id, request_id, request_hash, command, priority, device_count, created_ms,"
                   " expires_ms) VALUES (%s, %s, '', '', 1, 1, %s, 9000000) RETURNING id", (tenant, request, CREATED_MS))
    return cursor.fetchone()[0]


def make_block(cursor, rng, batch, block, model):
    """Stores one block with random targets, and states unless it is untouched; the model gets byte and time by seq."""
    first = rng.randrange(0, 128) * 8
    targets = bytearray(rng.randrange(1, 1024 // 8 - first // 8 + 1))
    for _ in range(rng.randrange(1, len(targets) * 8 + 1)):
        bit = rng.randrange(len(targets) * 8)
        targets[bit // 8] |= 1 << bit % 8
    slots = [i for i in range(len(targets) * 8) if targets[i // 8] >> i % 8 & 1]
    states, times = bytearray(len(targets) * 8), [0] * len(targets) * 8
    untouched = rng.random() < 0.3
    for i in slots:
        states[i] = QUEUED if untouched else rng.randrange(1, 12) | rng.randrange(16) << 4
        times[i] = 0 if untouched else rng.randrange(1 << 32)
        model[block * 1024 + first + i] = [states[i], CREATED_MS + times[i]]
    cursor.execute("INSERT INTO batch_block VALUES (%s, %s, %s, %s, %s, %s)",
                   (batch, block, first, bytes(targets), None if untouched else bytes(states),
                    None if untouched else struct.pack(f"<{len(times)}I", *times)))


def merge(known, byte, at_ms):
    """state_merge of lib/store/state.c; the time is that of the record that counts."""
    attempts = max(known[0] >> 4, byte >> 4) << 4
    if known[0] & 15 >= FIRST_TERMINAL:
        known[0] = known[0] & 15 | attempts
    else:
        known[:] = [byte & 15 | attempts, at_ms]


def log(cursor, rng, batch, tenant, model):
    """Rows of two workers, one after another in time, each with a group of this batch between groups of others."""
    at_ms = CREATED_MS
    for n in range(1, 30):
        at_ms += rng.randrange(1, 100)
        seqs = rng.sample(sorted(model), rng.randrange(1, min(20, len(model)) + 1))
        entries = struct.pack("<QIIIB", batch + 100, tenant, 1, seqs[0], 5)
        entries += struct.pack("<QII", batch, tenant, len(seqs))
        for seq in seqs:
            byte = rng.choice([4, 4, 5, 6, 10]) | rng.randrange(4) << 4
            entries += struct.pack("<IB", seq, byte)
            merge(model[seq], byte, at_ms)
        cursor.execute("INSERT INTO ack_log VALUES (%s, %s, %s, %s)", (1 + n % 2, n, at_ms, entries))


@pytest.mark.parametrize("seed", range(5))
def test_commands_expands_blocks_and_log(database, seed):
    cursor, tenant = database
    rng, model = random.Random(seed), {}
    cursor.execute("TRUNCATE ack_log")
    batch = make_batch(cursor, tenant, f"expand {seed}")
    for block in rng.sample(range(4), 3):
        make_block(cursor, rng, batch, block, model)
    log(cursor, rng, batch, tenant, model)
    cursor.execute("SELECT seq, device_id, state, attempts, (extract(epoch FROM updated_at) * 1000)::bigint FROM commands(%s)",
                   (batch,))
    expected = [(seq, f"d{seq}" if seq < DEVICES else None, NAMES[byte & 15], byte >> 4, at_ms)
                for seq, (byte, at_ms) in sorted(model.items())]
    assert cursor.fetchall() == expected
    cursor.execute("SELECT state, commands FROM batch_progress(%s)", (batch,))
    counts = {}
    for byte, _ in model.values():
        counts[NAMES[byte & 15]] = counts.get(NAMES[byte & 15], 0) + 1
    assert dict(cursor.fetchall()) == counts


def test_who_has_not_acknowledged(database):
    cursor, tenant = database
    batch = make_batch(cursor, tenant, "who")
    cursor.execute("TRUNCATE ack_log")
    cursor.execute("INSERT INTO batch_block VALUES (%s, 1, 8, %s, NULL, NULL)", (batch, b"\x07"))
    cursor.execute("INSERT INTO ack_log VALUES (1, 1, 5, %s)",
                   (struct.pack("<QIIIBIB", batch, tenant, 2, 1024 + 8, 5, 1024 + 10, 4),))
    cursor.execute("SELECT device_id, state FROM commands(%s) WHERE state IN ('HELD', 'QUEUED', 'ROUTED', 'SENT')", (batch,))
    assert cursor.fetchall() == [("d1033", "QUEUED"), ("d1034", "SENT")]
    cursor.execute("SELECT tenant_id, batch_id, state FROM open_command WHERE device_id = 'd1032' AND batch_id = %s", (batch,))
    assert cursor.fetchall() == [(tenant, batch, "SUCCEEDED")]
    cursor.execute("UPDATE batch SET closed_ms = 1 WHERE id = %s", (batch,))
    cursor.execute("SELECT count(*) FROM open_command WHERE batch_id = %s", (batch,))
    assert cursor.fetchone() == (0,)
