"""Lost mode is entered and left: by gRPC and the command line, at devices that speak protobuf and JSON."""
import json
import secrets

import paho.mqtt.client as mqtt
import pytest
from harness.answers import progress
from harness.device import good
from harness.patience import patient
from harness.stack import have
from paho.mqtt.properties import PacketTypes, Properties

pytestmark = pytest.mark.skipif(not have("muster", "muster-dispatcher", "muster-worker"), reason="not all is built")


@pytest.fixture
def tenant(api):
    return api.make_tenant(role=2)


def json_device(api, device_id, token):
    """Its deliveries are MQTT messages."""
    device = api.device(device_id, token, protocol=mqtt.MQTTv5)
    device.client.on_message = lambda _c, _u, message: device.deliveries.put(message)
    properties = Properties(PacketTypes.CONNECT)
    properties.UserProperty = ("content-type", "application/json")
    host, port = api.workers[0].address.rsplit(":", 1)
    device.client.connect(host, int(port), properties=properties)
    device.client.loop_start()
    assert device.connected.wait(patient(20))
    device.client.subscribe(f"devices/{device_id}/commands", qos=1)
    assert device.subscribed.wait(patient(20))
    return device


def test_entered_with_texts_and_left(api, tenant):
    pb, client = api.pb, api.client(tenant)
    api.import_devices(client, ["lost"])
    token = api.tokens(client, ["lost"])["lost"]
    enable = pb.LostModeCommand(action=pb.LOST_MODE_ACTION_ENABLE, message="Please return me", phone_number="+49 30 1234567",
                                footnote="Property of Acme")
    disable = pb.LostModeCommand(action=pb.LOST_MODE_ACTION_DISABLE)
    with api.device("lost", token, answer=good(pb)).connect(api.workers[0].address) as device:
        for command in (enable, disable):
            batch = api.submit(client, command=pb.Command(lost_mode=command)).batch
            assert batch.priority == pb.PRIORITY_URGENT and batch.command.lost_mode == command
            assert device.next().command == pb.Command(lost_mode=command)
            assert progress(api.watch(client, batch.id)) == {"succeeded": 1}


def test_it_goes_before_what_is_not_urgent(api, tenant):
    pb, client = api.pb, api.client(tenant)
    api.import_devices(client, ["away"])
    token = api.tokens(client, ["away"])["away"]
    api.wait_routed(api.submit(client, command=pb.Command(restart=pb.RestartCommand())).batch.id,
                    api.submit(client, command=pb.Command(lost_mode=pb.LostModeCommand(action=1, message="m"))).batch.id)
    with api.device("away", token, answer=good(pb)).connect(api.workers[0].address) as device:
        assert [device.next().command.WhichOneof("kind") for _ in range(2)] == ["lost_mode", "restart"]


def test_a_device_found_before_it_was_reached_only_leaves_it(api, tenant):
    """Both under one key: the later one takes the place of what was not sent."""
    pb, client = api.pb, api.client(tenant)
    api.import_devices(client, ["away"])
    token = api.tokens(client, ["away"])["away"]
    enable, disable = (
        api.submit(client, command=pb.Command(lost_mode=command), supersede_key="lost-mode").batch.id for command in (
            pb.LostModeCommand(action=pb.LOST_MODE_ACTION_ENABLE, phone_number="1"),
            pb.LostModeCommand(action=pb.LOST_MODE_ACTION_DISABLE)))
    api.watch(client, enable, until=lambda b: b.progress.superseded)  # until the leader has, whoever comes gets it
    with api.device("away", token, answer=good(pb)).connect(api.workers[0].address) as device:
        assert device.next().command.lost_mode.action == pb.LOST_MODE_ACTION_DISABLE
        assert progress(api.watch(client, disable)) == {"succeeded": 1}
        assert progress(api.watch(client, enable)) == {"superseded": 1} and device.deliveries.empty()


def test_each_device_shows_its_own_texts_also_in_json(api, tenant):
    pb, client = api.pb, api.client(tenant)
    ids = ["binary", "text"]
    api.import_devices(client, ids)
    tokens = api.tokens(client, ids)
    command = pb.Command(lost_mode=pb.LostModeCommand(action=pb.LOST_MODE_ACTION_ENABLE, message="This is {{whose}}",
                                                      phone_number="{{call}}", footnote="{{whose}}, Acme"))
    values = pb.Values(device_ids=ids, variables=[pb.Variable(name="whose", values=[b"Ann's", b'"Bob\'s"']),
                                                  pb.Variable(name="call", values=[b"1", b""])])
    with api.device("binary", tokens["binary"]).connect(api.workers[0].address) as binary:
        text = json_device(api, "text", tokens["text"])
        assert api.submit(client, command=command, values=values, target=None).batch.command == command
        assert binary.next().command.lost_mode == pb.LostModeCommand(
            action=pb.LOST_MODE_ACTION_ENABLE, message="This is Ann's", phone_number="1", footnote="Ann's, Acme")
        told = json.loads(text.next().payload)["command"]
        told["lostMode"].setdefault("phoneNumber", "")
        assert told == {"lostMode": {"action": "LOST_MODE_ACTION_ENABLE", "message": 'This is "Bob\'s"', "phoneNumber": "",
                                     "footnote": '"Bob\'s", Acme'}}
        text.close()


def test_the_command_line(api, tenant, cli):
    pb, client, env = api.pb, api.client(tenant), api.cli_env(tenant)
    api.import_devices(client, ["phone", "pad"])
    tokens = api.tokens(client, ["phone", "pad"])
    shown = cli("batch", "submit", "--help", check=0).stdout
    assert "lost-mode" in shown and "--action ACTION" in shown and "--footnote TEXT" in shown
    lost = lambda *flags, **k: cli("batch", "submit", "--type", "lost-mode", *flags, env=env, **k)
    phone = api.device("phone", tokens["phone"], answer=good(pb)).connect(api.workers[0].address)
    pad = json_device(api, "pad", tokens["pad"])
    out = lost("--action", "enable", "--message", "Please return me", "--phone-number", "1", "--footnote", "Acme",
               "--all", check=0).stdout
    assert ": lost-mode, 2 devices, URGENT" in out
    assert phone.next().command.lost_mode == pb.LostModeCommand(
        action=pb.LOST_MODE_ACTION_ENABLE, message="Please return me", phone_number="1", footnote="Acme")
    message = pad.next()
    assert message.properties.ContentType == "application/json"
    delivery = json.loads(message.payload)
    assert delivery["command"] == {"lostMode": {"action": "LOST_MODE_ACTION_ENABLE", "message": "Please return me",
                                                "phoneNumber": "1", "footnote": "Acme"}}
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    pad.client.publish("devices/pad/acks", json.dumps({"commandId": delivery["commandId"], "outcome": "OUTCOME_SUCCEEDED"}),
                       qos=1, properties=properties)
    # What it is left with has no texts: the service names each that is given.
    refused = lost("--action", "disable", "--message", "m", "--footnote", "f", "--all", check=3).stderr
    assert "\n  command.lost_mode.message: " in refused and "\n  command.lost_mode.footnote: " in refused
    done = lost("--action", "disable", "--device", "phone", "--watch", check=0)
    assert "1 devices, 1 SUCCEEDED" in done.stdout
    assert phone.next().command.lost_mode == pb.LostModeCommand(action=pb.LOST_MODE_ACTION_DISABLE)
    phone.close()
    pad.close()


@pytest.mark.skipif(not have("muster-fleet"), reason="muster-fleet is not built")
def test_simulated_devices_answer_it(api, tenant, cli):
    client = api.client(tenant)
    fleet = api.start_fleet(api.make_devices(client, 50, prefix=secrets.token_hex(4)))
    for flags in (("--action", "enable", "--phone-number", "1"), ("--action", "disable")):
        done = cli("batch", "submit", "--type", "lost-mode", *flags, "--all", "--watch", env=api.cli_env(tenant), check=0)
        assert "50 devices, 50 SUCCEEDED" in done.stdout
    fleet.stop()
