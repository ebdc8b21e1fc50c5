"""Accounts for every command: the fleet's record, ListCommands and plain SQL must tell the same story."""

TERMINAL = ("SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "EXPIRED", "CANCELED", "SUPERSEDED")


def states_by_grpc(stack, client, batch_id):
    """{(device id, command id): state name without prefix}"""
    names = stack.pb.CommandState
    return {(c.device_id, c.command_id): names.Name(c.state).removeprefix("COMMAND_STATE_")
            for c in stack.list_commands(client, batch_id)}


def states_by_sql(stack, batch_id):
    """{device id: state name}, from the function that expands the packed states."""
    return dict(stack.sql("SELECT device_id, state FROM commands(%s)", batch_id))


def check(stack, client, batch_ids, record, terminal=True):
    """Raises when a command is not terminal, or was executed twice, or when two witnesses differ."""
    wrong, seen = [], set()
    for batch_id in batch_ids:
        told = states_by_grpc(stack, client, batch_id)
        stored = states_by_sql(stack, batch_id)
        if {d: s for (d, _), s in told.items()} != stored:
            wrong.append(f"batch {batch_id}: ListCommands and SQL differ")
        for (device, command), state in told.items():
            seen.add((device, command))
            received, executed, outcome, acked = record.get((device, command), (0, 0, "NONE", False))
            line = f"batch {batch_id} {device} {command} {state}: received {received} executed {executed} {outcome} acked {acked}"
            if terminal and state not in TERMINAL:
                wrong.append("not terminal: " + line)
            if executed > 1:
                wrong.append("executed twice: " + line)
            if state in ("SUCCEEDED", "FAILED", "REJECTED") and outcome != state:
                wrong.append("the device says otherwise: " + line)
            if acked and outcome in ("SUCCEEDED", "FAILED", "REJECTED") and state not in (outcome, "TIMED_OUT"):
                wrong.append("PUBACKed and lost: " + line)
            if state in ("CANCELED", "EXPIRED", "SUPERSEDED") and executed:
                wrong.append("executed though never sent: " + line)
    strangers = [k for k in record if k not in seen]
    if strangers:
        wrong.append(f"commands nobody submitted: {strangers[:5]}")
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong[:20])
