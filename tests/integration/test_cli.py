"""The command line: usage, every subcommand against a real dispatcher, watching, and muster dev."""
import json
import os
import pty
import re
import secrets
import select
import shutil
import signal
import subprocess
import time

import pytest
from harness.daemons import cli, program
from harness.patience import fewer, patient
from harness.process import Process
from harness.stack import READ_ONLY, have

pytestmark = pytest.mark.skipif(not have("muster"), reason="muster is not built")
SERVED = pytest.mark.skipif(not have("muster-dispatcher"), reason="muster-dispatcher is not built")
ALL = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet"), reason="not all is built")

DONE, NOT_ALL, USAGE, RPC = 0, 1, 2, 3

SUBCOMMANDS = [line.split() for line in """migrate
dev
chaos
verify
plan
tenant bootstrap
tenant create
tenant list
tenant policy
tenant quota
key create
key list
key revoke
device import
device get
device list
device delete
device commands
device credentials
group create
group update
group list
group delete
batch submit
batch get
batch show
batch list
batch watch
batch cancel
batch pause
batch release
batch seal
batch resume
batch approve
batch reject
batch commands
command get
command show
audit list
audit verify
events watch
events devices
webhook add
webhook list
webhook remove
webhook rotate
webhook test
webhook dead
webhook replay
hold
release
holds""".splitlines()]


def lines(text):
    """JSON objects, one a line."""
    return [json.loads(line) for line in text.splitlines()]


# --- usage, without any server ---

@pytest.mark.parametrize("words", SUBCOMMANDS, ids=" ".join)
def test_every_subcommand_has_help_and_refuses_unknown_flags(words):
    shown = cli(*words, "--help", check=DONE)
    assert shown.stdout.startswith("Usage: muster " + " ".join(words)) and "--json" in shown.stdout
    wrong = cli(*words, "--no-such-flag", check=USAGE)
    assert wrong.stderr.count("\n") == 1 and "--no-such-flag" in wrong.stderr and wrong.stdout == ""


def test_the_table_of_subcommands_is_complete():
    shown = cli("--help", check=DONE).stdout
    listed = re.findall(r"^  (\w+)\s{1,7}(\w*)\s+[A-Z]", shown, re.M)
    assert [[w for w in pair if w] for pair in listed] == SUBCOMMANDS


@pytest.mark.parametrize("args, said", [
    ([], "Usage"),
    (["nonsense"], "unknown command nonsense"),
    (["batch", "nonsense"], "unknown command batch nonsense"),
    (["batch", "get"], "needs BATCH"),
    (["batch", "get", "seven"], "not a positive number"),
    (["batch", "get", "1", "2"], "unexpected argument 2"),
    (["batch", "get", "1", "--timeout", "soon"], "--timeout"),
    (["batch", "get", "1", "--ca", "/does/not/exist"], "/does/not/exist"),
    (["batch", "list", "--limit", "0"], "--limit"),
    (["batch", "list", "--state", "sideways"], "open, canceling, closed"),
    (["batch", "submit", "--all"], "needs --type"),
    (["batch", "submit", "--type", "dance", "--all"], "--type dance"),
    (["batch", "submit", "--type", "lock"], "exactly one of --all"),
    (["batch", "submit", "--type", "lock", "--all", "--platform", "ios"], "exactly one of --all"),
    (["batch", "submit", "--type", "lock", "--all", "--exclude-platform", "ios", "--exclude-platform", "android"],
     "--exclude-platform is given twice"),
    (["batch", "submit", "--type", "lock", "--all", "--digest="], "--digest is empty"),
    (["batch", "cancel", "1", "--platform", "ios", "--filter", "tag = a"], "at most one of"),
    (["hold", "--tenant", "a", "--tenant=b"], "--tenant is given twice"),
    (["events", "watch", "--token", "1", "--from-beginning"], "--token does not go with --from-beginning"),
    (["batch", "submit", "--type", "wipe", "--passcode", "1", "--all"], "--passcode does not go with --type wipe"),
    (["batch", "submit", "--type", "lost-mode", "--message", "m", "--all"], "--type lost-mode needs --action"),
    (["batch", "submit", "--type", "lost-mode", "--action", "find", "--all"], "--action find: is none of enable, disable"),
    (["batch", "submit", "--type", "lost-mode", "--action", "enable", "--footnote", "f", "--all"],
     "--action enable needs --message or --phone-number"),
    (["batch", "submit", "--type", "lock", "--footnote", "f", "--all"], "--footnote does not go with --type lock"),
    (["batch", "submit", "--type", "restrict", "--forbid", "camera,teleport", "--all"], "teleport"),
    (["batch", "submit", "--type", "configure", "--profile-id", "x", "--profile", "@/no/file", "--all"], "/no/file"),
    (["batch", "submit", "--type", "install", "--app", "x", "--sha256", "12", "--all"], "--sha256"),
    (["batch", "submit", "--type", "lock", "--all", "--expires", "tomorrow"], "--expires"),
    (["batch", "submit", "--type", "lock", "--all", "--priority", "high"], "urgent, normal, bulk"),
    *((["batch", "submit", "--type", "lock", "--all", f"--{flag}", text], f"--{flag} {text}") for flag, text in (
        ("wave", "10%:success=95:after=2h"), ("wave", "10%:success=95xyz"), ("wave", "10%:success=95%%"),
        ("wave", "10%:success="), ("wave", "10%:success=101"), ("wave", "10%:after=2h30m"), ("wave", "10%:after=2"),
        ("wave", "10%:handy"), ("wave", "10%x"), ("wave", "10%:"), ("wave", "restless"), ("pause-at", "5%:100:3"),
        ("pause-at", "5%:100x"), ("pause-at", "5%:x"), ("rate", "fast"), ("rate", "50/sec"), ("rate", "50x"), ("not-before", "2026-02-30T10:00Z"),
        ("not-before", "2026-12-01T22:00Zulu"), ("not-before", "8hours"), ("not-before", "2026-12-01"))),
    *((["batch", "submit", "--type", "lock", "--all", "--rate", "5", "--rate-growth", text], f"--rate-growth {text}")
      for text in ("150%@1000:95x", "150%@1000:95:200:1", "150%@1000:95:", "150%@1000")),
    (["key", "create", "acme", "--role", "king"], "admin, operator, read-only"),
    (["device", "credentials"], "DEVICE"),
    (["dev", "--devices", "0"], "--devices"),
    (["migrate"], "--postgres"),
    (["plan"], "needs --devices and --commands-per-day"),
    (["plan", "--devices", "1000"], "needs --devices and --commands-per-day"),
    (["plan", "--devices", "-1", "--commands-per-day", "1"], "--devices"),
    (["plan", "--devices", "99999999999999999999", "--commands-per-day", "1"], "--devices"),
    (["plan", "--devices", "1000000000001", "--commands-per-day", "1"], "--devices"),
    (["plan", "--devices", "many", "--commands-per-day", "1"], "is not a whole number"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--connected-share", "50%"], "--connected-share"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--connected-share", "1.1"], "from 0 to 1"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--connected-share", "nan"], "--connected-share"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--peak-factor", "0.5"], "--peak-factor"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--peak-factor", ""], "--peak-factor"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--batch-size", "0"], "--batch-size"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--keepalive", "0s"], "--keepalive"),
    (["plan", "--devices", "1", "--commands-per-day", "1", "--tls-records", "fat"], "openssl, lean"),
])
def test_wrong_usage_is_one_line_and_status_2(args, said):
    done = cli(*args, check=USAGE)
    assert said in done.stderr
    assert not args or done.stderr.count("\n") == 1


def test_an_import_that_is_no_import_is_refused_before_anything_is_sent(tmp_path):
    bad = tmp_path / "devices"
    for text, said in (("a,ios,more\n", "entry 1"), ("a,ios\nb,palm\n", "entry 2"), ('{"platform": "ios"}\n', "entry 1"),
                       ('{"id": 7}\n', "entry 1"), ("{\n", "entry 1"), ("id,colour\n", '"colour"'), ("id,tags\na,b,c\n", "entry 2"),
                       ('{"id": "a", "tags": "b"}\n', "entry 1"), ('{"id": "a", "attributes": {"b": 1}}\n', "entry 1")):
        bad.write_text(text)
        done = cli("device", "import", bad, check=USAGE)
        assert said in done.stderr and done.stderr.count("\n") == 1


def test_nobody_there_is_status_3():
    done = cli("batch", "list", "--plaintext", "--target", "127.0.0.1:1", check=RPC)
    assert "UNAVAILABLE" in done.stderr
    told = json.loads(cli("batch", "list", "--plaintext", "--target", "127.0.0.1:1", "--json", check=RPC).stderr)
    assert told["code"] == "UNAVAILABLE"


@SERVED
def test_tags_attributes_filters_and_digests(module_stack):
    s = module_stack
    env = s.cli_env(s.make_tenant())
    rows = "id,platform,tags,os_version,attr.site\na,ios,x;y,17.2,north\nb,ios,x,17.10,\nc,android\n"
    assert cli("device", "import", env=env, stdin=rows, check=DONE).stdout == "3 created, 0 updated\n"
    more = '{"id": "d", "tags": ["y"], "attributes": {"site": "south"}, "os_version": "9", "model": "m"}\n'
    cli("device", "import", env=env, stdin=more, check=DONE)
    ids = lambda *flags: [d["id"] for line in cli("device", "list", "--json", *flags, env=env, check=DONE).stdout.splitlines()
                          for d in json.loads(line).get("devices", [])]
    assert ids("--filter", "tag = x and os_version < 17.3") == ["a"]
    assert ids("--filter", "attr.site exists and not tag = x") == ["d"]
    shown = cli("device", "get", "a", env=env, check=DONE).stdout
    assert re.search("tag +x\n +tag +y\n +attr.site +north", shown) and "os version   17.2" in shown
    cli("device", "import", "--replace", env=env, stdin="id,tags\na,z\n", check=DONE)
    assert ids("--filter", "tag = x") == ["b"] and ids("--filter", "tag = z") == ["a"]

    cli("group", "create", "named", "--filter", "tag = x or tag = z", env=env, check=DONE)
    assert re.search("named +filter +.*tag = x or tag = z", cli("group", "list", env=env, check=DONE).stdout)
    assert ids("--group", "named") == ["a", "b"]
    cli("group", "update", "named", "--filter", "tag = z", env=env, check=DONE)
    assert ids("--group", "named") == ["a"]

    submit = lambda *flags, **k: cli("batch", "submit", "--type", "lock", *flags, env=env, **k)
    shown = submit("--filter", "tag exists", "--exclude-device", "d", "--validate-only", check=DONE).stdout
    assert "would address 2 devices" in shown
    digest = re.search("digest +([0-9a-f]{64})", shown).group(1)
    assert "2 devices" in submit("--all", "--exclude-filter", "tag = y or not tag exists", "--digest", digest, check=DONE).stdout
    assert "FAILED_PRECONDITION (TARGET_CHANGED)" in submit("--filter", "tag exists", "--digest", digest, check=RPC).stderr
    assert "line 1, column 7: expected a value" in submit("--filter", "tag = ", check=RPC).stderr
    assert "at most one of --exclude" in submit("--all", "--exclude-group", "a", "--exclude-filter", "b", check=USAGE).stderr
    assert "exactly one of" in submit("--all", "--filter", "tag = x", check=USAGE).stderr


@SERVED
def test_approval_and_policy(module_stack):
    s = module_stack
    tenant = s.make_tenant()
    env = s.cli_env(tenant)
    approver = s.cli_env(s.make_key(tenant.number, 4))
    cli("device", "import", env=env, stdin="a,ios\nb,ios\n", check=DONE)
    shown = cli("tenant", "policy", tenant.name, env=env, check=DONE).stdout
    assert "wipe remove_application restore" in shown and "100 devices and 10 % of the fleet" in shown and "left         1 " in shown
    changed = cli("tenant", "policy", tenant.name, "--devices", 0, "--cooling-off", "0s", "--command", "wipe", env=env, check=DONE)
    assert re.search("commands +wipe\n", changed.stdout) and "0 devices and 10 %" in changed.stdout
    assert "would be held for approval" in cli("batch", "submit", "--type", "wipe", "--all", "--validate-only", env=env,
                                               check=DONE).stdout
    shown = cli("batch", "submit", "--type", "wipe", "--all", env=env, check=DONE).stdout
    batch = re.search(r"batch (\d+):", shown).group(1)
    assert "approval     PENDING" in shown and "2 HELD" in shown
    digest, command = re.search("digest +([0-9a-f]{64})", shown).group(1), re.search("command +([0-9a-f]{64})", shown).group(1)
    flags = ("--digest", digest, "--command-hash", command, "--reason", "fine")
    assert "needs --digest and --command-hash" in cli("batch", "approve", batch, "--digest", digest, env=approver, check=USAGE).stderr
    assert "PERMISSION_DENIED (SAME_KEY)" in cli("batch", "approve", batch, *flags, env=env, check=RPC).stderr
    shown = cli("batch", "approve", batch, *flags, env=approver, check=DONE).stdout
    assert "approval     RELEASED" in shown and ": fine" in shown
    second = re.search(r"batch (\d+):", cli("batch", "submit", "--type", "wipe", "--all", env=env, check=DONE).stdout).group(1)
    assert "approval     REJECTED" in cli("batch", "reject", second, "--reason", "no", env=approver, check=DONE).stdout
    assert "guard        off" in cli("tenant", "policy", tenant.name, "--disable", env=env, check=DONE).stdout
    assert "contradict" in cli("tenant", "policy", tenant.name, "--disable", "--enable", env=env, check=USAGE).stderr
    assert "PERMISSION_DENIED" in cli("tenant", "policy", tenant.name, "--disable", env=approver, check=RPC).stderr


# --- the capacity model ---

def plan(*flags):
    return json.loads(cli("plan", *flags, "--json", check=DONE).stdout)


def test_a_plan_has_assumptions_first_and_the_bottleneck_last():
    shown = cli("plan", "--devices", 1000000, "--commands-per-day", 10000000, check=DONE).stdout
    parts = ["Assumptions", "Load at the peak", "Fleet", "Limits", "ottleneck"]
    assert sorted(parts, key=shown.index) == parts
    assert "1,000,000, 50 % connected: 500,000" in shown and "costs measured on" in shown
    assert re.search(r"muster-worker +35 ", shown)  # 500,000 over 15,000, and one to spare


@pytest.mark.parametrize("devices, commands", [(0, 0), (0, 10**15), (1, 0), (1, 1), (10**10, 10**11), (10**12, 10**15)])
def test_a_plan_of_any_size_is_printed(devices, commands):
    shown = cli("plan", "--devices", devices, "--commands-per-day", commands, check=DONE)
    assert shown.stderr == "" and not re.search(r"\b-?(nan|inf)\b", shown.stdout)
    told = plan("--devices", devices, "--commands-per-day", commands)
    assert told["assumptions"]["devices"] == devices and told["components"]["worker"]["processes"] >= 2


def test_a_plan_follows_its_flags():
    small = plan("--devices", 100000, "--commands-per-day", 1000000)
    assert all(used <= 1 for used in small["limits"].values()) and small["room"] > 1
    large = plan("--devices", 10**8, "--commands-per-day", 10**10)
    assert max(large["limits"].values()) > 1 and large["room"] < 1
    assert large["limits"][large["firstBottleneck"]] == max(large["limits"].values())
    fewer = plan("--devices", 10**8, "--commands-per-day", 10**10, "--descriptors", 200000)
    assert fewer["components"]["worker"]["processes"] < large["components"]["worker"]["processes"] / 5
    assert fewer["limits"]["postgres_commits"] < large["limits"]["postgres_commits"]
    faster = plan("--devices", 10**8, "--commands-per-day", 10**10, "--commits-limit", 10**6)
    assert faster["limits"]["postgres_commits"] < large["limits"]["postgres_commits"]
    nobody = plan("--devices", 100000, "--commands-per-day", 1000000, "--connected-share", 0)
    assert nobody["connected"] == 0 and nobody["components"]["worker"]["processes"] == 2


def test_a_plan_asks_no_server():
    env = {"MUSTER_TARGET": "127.0.0.1:1", "MUSTER_POSTGRES": "host=/nonexistent"}
    assert cli("plan", "--devices", 1, "--commands-per-day", 1, env=env, check=DONE).stderr == ""


# --- straight in PostgreSQL ---

def test_migrate_and_bootstrap(stack):
    env = stack.begin_empty().cli_env()
    assert re.fullmatch(r"[1-9]\d+ migrations applied\n", cli("migrate", env=env, check=DONE).stdout)
    assert cli("migrate", "--json", env=env, check=DONE).stdout == '{"applied":0}\n'
    first = cli("tenant", "bootstrap", "acme", env=env, check=DONE).stdout.strip()
    again = cli("tenant", "bootstrap", "acme", env=env, check=DONE).stdout.strip()
    assert re.fullmatch(r"muster_\d+_[0-9a-f]{64}", first) and first != again
    assert stack.sql("SELECT count(*) FROM tenant") == [(1,)]
    assert stack.sql("SELECT role, length(secret_hash) FROM api_key") == [(1, 32), (1, 32)]
    assert stack.sql("SELECT count(*) FROM audit WHERE action = 'bootstrap'") == [(2,)]
    refused = cli("tenant", "bootstrap", "no spaces", env=env, check=NOT_ALL)
    assert "no spaces" in refused.stderr
    away = cli("migrate", "--postgres", "host=/does/not/exist dbname=x", check=NOT_ALL)
    assert away.stderr.count("\n") == 1


# --- against a dispatcher ---

@pytest.fixture(scope="module")
def env(module_stack):
    """Environment of an admin of a tenant with a name of its own."""
    tenant = module_stack.make_tenant("acme")
    return dict(module_stack.cli_env(tenant), TENANT=tenant.name)


@pytest.fixture
def tenant_env(module_stack):
    return module_stack.cli_env(module_stack.make_tenant(f"t-{secrets.token_hex(4)}"))


@SERVED
def test_tenants_and_keys(module_stack, env):
    cli("tenant", "create", "globex", env=env, check=DONE)
    exists = cli("tenant", "create", "globex", env=env, check=RPC)
    assert "ALREADY_EXISTS (TENANT_EXISTS)" in exists.stderr
    listed = cli("tenant", "list", env=env, check=DONE).stdout
    assert "globex" in listed and "acme" in listed
    key = cli("key", "create", "globex", "--role", "read-only", "--description", "eyes", env=env, check=DONE).stdout.strip()
    mine = dict(env, MUSTER_API_KEY=key)
    cli("batch", "list", env=mine, check=DONE)
    refused = cli("batch", "submit", "--type", "lock", "--all", env=mine, check=RPC)
    assert "PERMISSION_DENIED (ROLE_INSUFFICIENT)" in refused.stderr
    number = key.split("_")[1]
    (answer,) = lines(cli("key", "list", "globex", "--json", env=env, check=DONE).stdout)
    assert [(k["id"], k["role"], k["description"]) for k in answer["keys"]] == [(number, "ROLE_READ_ONLY", "eyes")]
    assert "secret" not in json.dumps(answer)
    cli("key", "revoke", number, env=env, check=DONE)
    assert "muster_" not in cli("key", "list", "globex", env=env, check=DONE).stdout
    assert READ_ONLY == module_stack.sql("SELECT role FROM api_key WHERE id = %s AND revoked_ms IS NOT NULL", number)[0][0]


@SERVED
def test_errors_have_code_reason_message_and_fields(env):
    wrong = dict(env, MUSTER_API_KEY="muster_1_" + "0" * 64)
    done = cli("batch", "list", env=wrong, check=RPC)
    assert re.match(r"muster: UNAUTHENTICATED \(API_KEY_INVALID\): .+\n", done.stderr)
    assert "NOT_FOUND (BATCH_NOT_FOUND)" in cli("batch", "get", 999999999, env=env, check=RPC).stderr
    assert "NOT_FOUND" in cli("command", "get", "00000000-03e7-8000-8000-000100000000", env=env, check=RPC).stderr
    long = cli("batch", "submit", "--type", "lock", "--message", "x" * 600, "--all", env=env, check=RPC)
    assert "INVALID_ARGUMENT (INVALID_FIELD)" in long.stderr and "\n  command.lock.message: " in long.stderr
    told = json.loads(cli("batch", "submit", "--type", "lock", "--message", "x" * 600, "--all", "--json", env=env,
                          check=RPC).stderr)
    assert told["fieldViolations"][0]["field"] == "command.lock.message"


@SERVED
def test_devices(tenant_env, tmp_path):
    env = tenant_env
    csv = tmp_path / "devices.csv"
    csv.write_text("id,platform\n" + "".join(f"phone-{i},ios\n" for i in range(1200)) + "pc-1, windows\r\n\nthing\n")
    assert cli("device", "import", csv, env=env, check=DONE).stdout == "1202 created, 0 updated\n"
    more = '{"id": "pc-1", "platform": "PLATFORM_WINDOWS"}\n{"id": "tab-1", "platform": "ipados"}\n'
    assert cli("device", "import", "--json", env=env, stdin=more, check=DONE).stdout == '{"created":1,"updated":1}\n'
    listed = cli("device", "list", "--json", env=env, check=DONE).stdout
    devices = [d for page in lines(listed) for d in page["devices"]]
    assert len(lines(listed)) == 2 and len(devices) == 1203
    assert [d["id"] for d in devices[:2]] == ["phone-0", "phone-1"]
    assert len(cli("device", "list", "--limit", 7, env=env, check=DONE).stdout.splitlines()) == 8
    assert "tab-1" in cli("device", "list", "--platform", "ipados", env=env, check=DONE).stdout
    shown = cli("device", "get", "pc-1", env=env, check=DONE).stdout
    assert "WINDOWS" in shown and "OFFLINE" in shown
    tokens = cli("device", "credentials", "phone-0", "phone-1", "--lifetime", "2h", env=env, check=DONE).stdout
    assert re.fullmatch(r"phone-0 mt1\.\S+\nphone-1 mt1\.\S+\n", tokens)
    many = cli("device", "credentials", "--devices-file", "-", env=env, stdin="phone-5\nphone-6\n", check=DONE).stdout
    assert many.count("\n") == 2
    cli("device", "delete", "phone-0", "phone-1", env=env, check=DONE)
    assert "NOT_FOUND (DEVICE_NOT_FOUND)" in cli("device", "get", "phone-0", env=env, check=RPC).stderr


@SERVED
def test_groups(tenant_env, tmp_path):
    env = tenant_env
    cli("device", "import", env=env, stdin="".join(f"d{i},android\n" for i in range(20)), check=DONE)
    ids = tmp_path / "ids"
    ids.write_text("d0\nd1\nd2\n")
    cli("group", "create", "sales", "--devices-file", ids, "--device", "d3", env=env, check=DONE)
    assert "ALREADY_EXISTS (GROUP_EXISTS)" in cli("group", "create", "sales", env=env, check=RPC).stderr
    updated = cli("group", "update", "sales", "--add", "d4", "--add", "d5", "--remove", "d0", "--json", env=env, check=DONE)
    assert json.loads(updated.stdout)["group"]["deviceCount"] == 5
    assert "sales" in cli("group", "list", env=env, check=DONE).stdout
    dry = cli("batch", "submit", "--type", "restart", "--group", "sales", "--validate-only", "--json", env=env, check=DONE)
    assert json.loads(dry.stdout)["batch"]["deviceCount"] == 5
    cli("group", "delete", "sales", env=env, check=DONE)
    gone = cli("batch", "submit", "--type", "restart", "--group", "sales", env=env, check=RPC)
    assert "GROUP_NOT_FOUND" in gone.stderr


@SERVED
@pytest.mark.parametrize("flags, kind, content", [
    (["lock", "--message", "m", "--phone-number", "1", "--passcode", "2"], "lock",
     {"message": "m", "phoneNumber": "1", "passcode": "2"}),
    (["unlock", "--clear-passcode"], "unlock", {"clearPasscode": True}),
    (["wipe", "--preserve-data-plan", "--wipe-external-storage"], "wipe",
     {"preserveDataPlan": True, "wipeExternalStorage": True}),
    (["configure", "--profile-id", "p", "--profile", "abc"], "configure", {"profileId": "p", "profile": "YWJj"}),
    (["restrict", "--allow", "usb", "--forbid", "camera,screen-capture"], "restrictFunctions", {"restrictions": [
        {"function": "FUNCTION_USB", "allowed": True}, {"function": "FUNCTION_CAMERA"},
        {"function": "FUNCTION_SCREEN_CAPTURE"}]}),
    (["query", "--item", "os_version"], "queryInformation", {"items": ["os_version"]}),
    (["install", "--app", "a", "--version", "1", "--url", "https://x", "--sha256", "00" * 32], "installApplication",
     {"applicationId": "a", "version": "1", "url": "https://x", "sha256": "A" * 43 + "="}),
    (["remove", "--app", "a"], "removeApplication", {"applicationId": "a"}),
    (["back-up", "--destination", "s3"], "backUp", {"destination": "s3"}),
    (["restore", "--backup-reference", "r"], "restore", {"backupReference": "r"}),
    (["restart", "--grace", "90s"], "restart", {"grace": "90s"}),
    (["custom", "--custom-type", "com.example.blink", "--payload", "@-"], "custom",
     {"type": "com.example.blink", "payload": "AAEC"}),
    (["lost-mode", "--action", "enable", "--message", "m", "--phone-number", "1", "--footnote", "f"], "lostMode",
     {"action": "LOST_MODE_ACTION_ENABLE", "message": "m", "phoneNumber": "1", "footnote": "f"}),
    (["lost-mode", "--action", "disable"], "lostMode", {"action": "LOST_MODE_ACTION_DISABLE"}),
], ids=lambda p: p[0] if isinstance(p, list) else "")
def test_every_type_of_command(env, tenant_env, flags, kind, content):
    cli("device", "import", env=tenant_env, stdin="a,ios\nb,android\n", check=DONE)
    done = cli("batch", "submit", "--type", *flags, "--device", "a", "--device", "nobody", "--expires", "2h", "--priority",
               "bulk", "--description", "words", "--json", env=tenant_env, stdin="\x00\x01\x02", check=DONE)
    answer = json.loads(done.stdout)
    batch = answer["batch"]
    assert batch["command"] == {kind: content}
    assert (batch["deviceCount"], batch["priority"], batch["description"]) == (1, "PRIORITY_BULK", "words")
    assert (answer["unknownCount"], answer["unknownDeviceIds"]) == (1, ["nobody"])
    shown = cli("batch", "get", batch["id"], env=tenant_env, check=DONE).stdout
    assert shown.startswith(f"batch {batch['id']}: ") and "1 QUEUED" in shown


@SERVED
def test_batches(tenant_env):
    env = tenant_env
    cli("device", "import", env=env, stdin="a,ios\nb,android\nc,ios\n", check=DONE)
    args = ["batch", "submit", "--type", "lock", "--platform", "ios", "--request-id", "once", "--json"]
    first, second = (json.loads(cli(*args, env=env, check=DONE).stdout) for _ in range(2))
    assert first["batch"]["id"] == second["batch"]["id"] and second["replayed"]
    other = cli("batch", "submit", "--type", "unlock", "--platform", "ios", "--request-id", "once", env=env, check=RPC)
    assert "ALREADY_EXISTS (REQUEST_ID_REUSED)" in other.stderr
    number = first["batch"]["id"]
    assert number in cli("batch", "list", "--state", "open", env=env, check=DONE).stdout
    commands = json.loads(cli("batch", "commands", number, "--json", env=env, check=DONE).stdout)["commands"]
    assert [(c["deviceId"], c["state"]) for c in commands] == [("a", "COMMAND_STATE_QUEUED"), ("c", "COMMAND_STATE_QUEUED")]
    assert commands[0]["commandId"] in cli("device", "commands", "a", env=env, check=DONE).stdout
    shown = cli("command", "get", commands[0]["commandId"], env=env, check=DONE).stdout
    assert "QUEUED" in shown and f"batch        {number}" in shown
    cli("batch", "cancel", number, env=env, check=DONE)
    watched = cli("batch", "watch", number, env=env, check=NOT_ALL)
    assert "2 CANCELED" in watched.stdout
    assert len(cli("batch", "commands", number, "--state", "canceled", env=env, check=DONE).stdout.splitlines()) == 3
    nobody = cli("batch", "submit", "--type", "lock", "--platform", "tvos", env=env, check=RPC)
    assert "FAILED_PRECONDITION (EMPTY_TARGET)" in nobody.stderr


@SERVED
def test_a_batch_with_times_is_submitted_once(tenant_env):
    """As moments these are the same in a repeated call."""
    cli("device", "import", env=tenant_env, stdin="a,ios\n", check=DONE)
    day, hour = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + s)) for s in (86400, 3600))
    args = ["batch", "submit", "--type", "lock", "--all", "--request-id", "once", "--expires", day, "--not-before", hour, "--json"]
    first, second = (json.loads(cli(*args, env=tenant_env, check=DONE).stdout) for _ in range(2))
    assert first["batch"]["expiresAt"] == day and first["batch"]["id"] == second["batch"]["id"] and second["replayed"]
    args[args.index(day)] = "1d"
    assert "REQUEST_ID_REUSED" in cli(*args, env=tenant_env, check=RPC).stderr


# --- with a fleet ---

@pytest.fixture
def fleet_env(module_stack):
    """(environment, starts a fleet of n devices with flags)"""
    tenant = module_stack.make_tenant(f"f-{secrets.token_hex(4)}")
    client = module_stack.client(tenant)

    def start(count, *flags):
        fleet = module_stack.start_fleet(module_stack.make_devices(client, count), *flags)
        return fleet
    yield module_stack.cli_env(tenant), start
    for fleet in module_stack.fleets:
        fleet.stop()


@ALL
def test_submit_and_watch_until_all_succeeded(fleet_env):
    env, start = fleet_env
    start(200)
    done = cli("batch", "submit", "--type", "lock", "--all", "--watch", env=env, check=DONE)
    assert re.search(r"^batch \d+: 200 devices, 200 SUCCEEDED, [\d.]+ s, \d+ commands/s$", done.stdout, re.M)
    assert "200/200" in done.stderr.splitlines()[-1] and "\r" not in done.stderr
    messages = lines(cli("batch", "submit", "--type", "query", "--all", "--watch", "--json", env=env, check=DONE).stdout)
    assert messages[-1]["batch"]["state"] == "BATCH_STATE_CLOSED"
    assert messages[-1]["batch"]["progress"] == {"succeeded": 200}
    assert "os version" in cli("device", "get", "device-000000", env=env, check=DONE).stdout


@ALL
def test_the_exit_status_says_when_not_all_succeeded(fleet_env):
    env, start = fleet_env
    start(50, "--failed", "1")
    done = cli("batch", "submit", "--type", "lock", "--all", "--watch", env=env, check=NOT_ALL)
    assert "50 FAILED" in done.stdout


@ALL
def test_the_bar_on_a_terminal(fleet_env):
    env, start = fleet_env
    fleet = start(100, "--hold")
    master, slave = pty.openpty()
    child = subprocess.Popen([program("muster"), "batch", "submit", "--type", "lock", "--all", "--watch"],
                             env=dict(os.environ, **env), stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    drawn = b""
    try:
        while chunk := os.read(master, 4096):
            if not drawn:
                fleet.go()
            drawn += chunk
    except OSError:
        pass  # the terminal is gone with its last writer
    os.close(master)
    assert child.wait(patient(60)) == DONE
    bars = drawn.decode().split("\r")
    assert len(bars) > 2 and re.match(r"\[#+\] 100% 100/100 ", bars[-2])
    assert all(len(re.sub(r"\x1b\[K|\n", "", bar)) < 80 for bar in bars)


# --- muster dev ---

def processes():
    """Of each process that runs: its number, its parent's, and its command line."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
                yield int(pid), int(stat.read().rpartition(")")[2].split()[1]), line.read().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile


def left_behind(marker):
    """Command lines of processes that still use the folder."""
    return [line for _, _, line in processes() if marker in line]


def private_tmp():
    """A short folder for TMPDIR that PostgreSQL's user may pass through."""
    folder = f"/tmp/md-{secrets.token_hex(4)}"
    os.mkdir(folder)
    os.chmod(folder, 0o711)
    return folder


@ALL
def test_demo_ends_by_itself_and_leaves_nothing_behind():
    folder = private_tmp()
    count = fewer(300)
    done = cli("dev", "--demo", "--devices", count, "--dispatchers", 2, env={"TMPDIR": folder}, check=DONE)
    assert re.search(rf"^batch 1: {count} devices, {count} SUCCEEDED, [\d.]+ s, \d+ commands/s$", done.stdout.strip().splitlines()[-1])
    assert os.listdir(folder) == [] and left_behind(folder) == []
    os.rmdir(folder)


@ALL
def test_demo_says_when_not_all_succeeded():
    folder = private_tmp()
    done = cli("dev", "--demo", "--devices", 40, "--", "--rejected", "1", env={"TMPDIR": folder}, check=NOT_ALL)
    assert "40 REJECTED" in done.stdout
    assert os.listdir(folder) == []
    os.rmdir(folder)


def sourced(path):
    """What a shell has after sourcing the file."""
    out = subprocess.run(["sh", "-c", f". {path} && env"], capture_output=True, text=True, check=True).stdout
    return {k: v for k, v in (line.split("=", 1) for line in out.splitlines()) if k.startswith("MUSTER_")}


def start_dev(tmp_path, folder, *flags):
    dev = Process([program("muster"), "dev", "--devices", "60", *flags], tmp_path / "dev.log",
                  env=dict(os.environ, TMPDIR=folder))
    dev.wait_line(lambda l: "Muster is up" in l, 120)
    return dev


@ALL
def test_dev_keeps_its_data_and_is_reached_by_the_file_it_writes(tmp_path):
    folder = private_tmp()
    data, env_file = os.path.join(folder, "data"), os.path.join(folder, "env")
    dev = start_dev(tmp_path, folder, "--data", data, "--env", env_file)
    env = sourced(env_file)
    cli("batch", "submit", "--type", "lock", "--all", "--watch", env=env, check=DONE)
    assert len(env["MUSTER_WORKERS"].split(",")) == 2
    dev.signal(signal.SIGINT)
    assert dev.wait(90) == DONE
    assert left_behind(folder) == [] and sorted(os.listdir(folder)) == ["data", "env"]
    dev = start_dev(tmp_path, folder, "--data", data)
    env = sourced(os.path.join(data, "env"))
    assert "60 SUCCEEDED" in cli("batch", "get", 1, env=env, check=DONE).stdout
    dev.signal(signal.SIGTERM)
    assert dev.wait(90) == DONE
    assert left_behind(folder) == []
    subprocess.run(["rm", "-rf", folder], check=True)


@ALL
def test_dev_reports_a_process_that_dies(tmp_path):
    folder = private_tmp()
    env_file = os.path.join(folder, "env")
    dev = start_dev(tmp_path, folder, "--env", env_file)
    os.kill(int(sourced(env_file)["MUSTER_WORKER_PIDS"].split(",")[1]), signal.SIGKILL)
    assert dev.wait(90) == NOT_ALL
    assert "muster dev: worker-2 was killed by signal 9" in dev.lines
    assert os.listdir(folder) == ["env"] and left_behind(folder) == []
    subprocess.run(["rm", "-rf", folder], check=True)


@ALL
def test_dev_starts_a_worker_again_if_told_to(tmp_path):
    folder = private_tmp()
    env_file = os.path.join(folder, "env")
    dev = start_dev(tmp_path, folder, "--env", env_file, "--restart", "--", "--backoff", "50ms")
    env = sourced(env_file)
    for pid in env["MUSTER_WORKER_PIDS"].split(","):
        os.kill(int(pid), signal.SIGKILL)
    cli("batch", "submit", "--type", "lock", "--all", "--watch", env=env, check=DONE)
    assert "muster dev: worker-1 was killed by signal 9" in dev.lines
    dev.signal(signal.SIGTERM)
    assert dev.wait(90) == DONE
    assert os.listdir(folder) == ["env"] and left_behind(folder) == []
    subprocess.run(["rm", "-rf", folder], check=True)


@ALL
@pytest.mark.parametrize("words", ["Starting PostgreSQL", "Starting 1 dispatchers", "Registering"])
def test_dev_is_interrupted_while_it_comes_up(tmp_path, words):
    folder = private_tmp()
    dev = Process([program("muster"), "dev", "--devices", "2000"], tmp_path / "dev.log", env=dict(os.environ, TMPDIR=folder))
    dev.wait_line(lambda l: words in l, 60)
    dev.signal(signal.SIGINT)
    assert dev.wait(90) == NOT_ALL
    assert os.listdir(folder) == [] and left_behind(folder) == []
    os.rmdir(folder)


@ALL
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_dev_needs_no_root(tmp_path):
    """On a copy of the programs, since the build may lie where nobody else may look."""
    folder = private_tmp()
    for name in ("muster", "muster-dispatcher", "muster-worker", "muster-fleet"):
        shutil.copy(program(name), folder)
    work = os.path.join(folder, "work")
    os.mkdir(work)
    shutil.chown(work, "nobody")
    done = subprocess.run([os.path.join(folder, "muster"), "dev", "--demo", "--devices", "30"], capture_output=True, text=True,
                          user="nobody", group="nogroup", extra_groups=[], cwd="/", timeout=patient(120), check=False,
                          env=dict(os.environ, TMPDIR=work, HOME=work))
    assert done.returncode == DONE and "30 SUCCEEDED" in done.stdout, done.stderr
    assert os.listdir(work) == []
    shutil.rmtree(folder)


@ALL
def test_the_children_of_a_killed_dev_die_with_it(tmp_path):
    folder = private_tmp()
    dev = start_dev(tmp_path, folder)
    children = [pid for pid, parent, _ in processes() if parent == dev.pid]
    assert len(children) == 6
    watched = [os.pidfd_open(p) for p in children]
    dev.kill()
    waiting = set(watched)
    while waiting:
        ready, _, _ = select.select(waiting, [], [], patient(60))
        assert ready, "children outlive muster dev"
        waiting -= set(ready)
    for fd in watched:
        os.close(fd)
    subprocess.run(["rm", "-rf", folder], check=True)
