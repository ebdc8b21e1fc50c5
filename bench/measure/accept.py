"""A batch to the whole registered fleet, no device connected: accepting, validating, cancelling, and what it weighs."""
import statistics
import time


def _timed_ms(call):
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1e3, answer


def measure(installation, client, registered, rounds):
    """`registered` devices are there already. Leaves no open batch behind."""
    s, pb = installation.stack, installation.stack.pb
    s.submit(client, validate_only=True)  # connects, and warms the caches
    ids, accept, validate, cancel = [], [], [], []
    redis_before, pg_before = installation.redis_bytes(), installation.batch_bytes()
    for _ in range(rounds):
        ms, answer = _timed_ms(lambda: s.submit(client))
        if answer.batch.device_count != registered:
            raise AssertionError(f"a batch to all addresses {answer.batch.device_count} of {registered} devices")
        accept.append(ms)
        ids.append(answer.batch.id)
        installation.wait_batches("routed_ms", ids)
    redis_bytes = (installation.redis_bytes() - redis_before) / rounds / registered
    pg_bytes = (installation.batch_bytes() - pg_before) / rounds / registered
    for _ in range(rounds):
        ms, answer = _timed_ms(lambda: s.submit(client, validate_only=True))
        validate.append(ms)
    for i in ids:
        ms, _ = _timed_ms(lambda i=i: client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=i)))
        cancel.append(ms)
        installation.wait_batches("closed_ms", [i])
    return {
        "accept_300k_ms": statistics.median(accept),
        "validate_300k_ms": statistics.median(validate),
        "cancel_300k_ms": statistics.median(cancel),
        "accept_300k_ms_rounds": accept,
        "cancel_300k_ms_rounds": cancel,
        "redis_bytes_per_queued_cmd": redis_bytes,
        "pg_bytes_per_queued_cmd": pg_bytes,
    }
