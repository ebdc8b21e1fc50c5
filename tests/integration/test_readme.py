"""The examples of README.md do what it says."""
import os
import re
import sys

import pytest
from harness.daemons import cli
from harness.process import Process
from harness.stack import have
from harness.stubs import ROOT

pytestmark = pytest.mark.skipif(not have("muster", "muster-dispatcher", "muster-worker"), reason="not all is built")


def examples():
    """The Python examples, in order: a client, a device."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return re.findall(r"^```python\n(.*?)^```", f.read(), re.M | re.S)


def run(text, stack, tenant, tmp_path, name, *args):
    script = tmp_path / f"{name}.py"
    script.write_text(text.replace('"build/py"', repr(next(p for p in sys.path if p.endswith("py") and os.path.isdir(
        os.path.join(p, "muster"))))))
    return Process([sys.executable, "-u", script, *args], tmp_path / f"{name}.log", env=dict(os.environ, **stack.cli_env(tenant)))


def test_a_client_and_a_device_in_a_few_lines(stack, tmp_path):
    stack.start()
    tenant = stack.make_tenant()
    env = stack.cli_env(tenant)
    cli("device", "import", env=env, stdin="phone-42,android\n", check=0)
    _, token = cli("device", "credentials", "phone-42", env=env, check=0).stdout.split()
    client_text, device_text = examples()
    device = run(device_text, stack, tenant, tmp_path, "device", "phone-42", token, *stack.workers[0].address.split(":"))
    client = run(client_text, stack, tenant, tmp_path, "client")
    device.wait_line(lambda l: "told to" in l and "Please return me" in l)
    client.wait_line(lambda l: "succeeded: 1" in l)
    assert client.wait() == 0
    device.kill()


def test_the_sql_of_the_examples(stack):
    stack.start(workers=0)
    env = stack.cli_env(stack.make_tenant())
    cli("device", "import", env=env, stdin="a,ios\nb,android\n", check=0)
    cli("batch", "submit", "--type", "lock", "--message", "Please return me", "--platform", "ios", env=env, check=0)
    assert stack.sql("SELECT device_id, state FROM commands(1) WHERE state <> 'SUCCEEDED'") == [("a", "QUEUED")]
