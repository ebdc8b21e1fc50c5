"""A device made with the stock client paho-mqtt: protobuf in, protobuf out."""
import queue
import ssl
import threading

import paho.mqtt.client as mqtt

from .patience import patient


def good(pb):
    """The answer of a device that carries out what it is told."""
    return lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_SUCCEEDED)


class Device:
    """Connects to a worker's TLS port; deliveries come out of `next()`.

    answer: called with each Delivery, returns an Acknowledgement to publish or None; default: publish nothing."""

    def __init__(self, stubs, device_id, token, ca, protocol=mqtt.MQTTv311, answer=None, keepalive=60, tls=True):
        self.pb, self.id, self.answer = stubs.pb, device_id, answer
        self.deliveries = queue.Queue()
        self.connected, self.subscribed, self.gone = threading.Event(), threading.Event(), threading.Event()
        self.connack = self.reason = None
        self.published = {}
        self.lock = threading.Lock()
        extra = {} if protocol == mqtt.MQTTv5 else {"clean_session": True}
        self.client = mqtt.Client(client_id=device_id, protocol=protocol, **extra)
        self.client.username_pw_set(device_id, token)
        if tls:
            context = ssl.create_default_context(cafile=ca)
            context.check_hostname = False
            self.client.tls_set_context(context)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._on_message
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish
        self.keepalive = keepalive

    def _on_connect(self, _client, _user, _flags, code, *_):
        self.connack = code
        self.connected.set()

    def _on_disconnect(self, _client, _user, code, *_):
        self.reason = code
        self.gone.set()

    def _on_publish(self, _client, _user, mid):
        with self.lock:
            self.published.setdefault(mid, threading.Event()).set()

    def _on_message(self, _client, _user, message):
        delivery = self.pb.Delivery.FromString(message.payload)
        self.deliveries.put(delivery)
        if self.answer:
            ack = self.answer(delivery)
            if ack is not None:
                self.publish(ack)

    def connect(self, address, subscribe=True, timeout=20):
        host, port = address.rsplit(":", 1)
        self.client.connect(host, int(port), self.keepalive)
        self.client.loop_start()
        assert self.connected.wait(patient(timeout)), "no CONNACK"
        if subscribe:
            assert self.connack == 0, f"refused: {self.connack}"
            self.client.subscribe(f"devices/{self.id}/commands", qos=1)
            assert self.subscribed.wait(patient(timeout)), "no SUBACK"
        return self

    def next(self, timeout=20):
        """The next delivery."""
        return self.deliveries.get(timeout=patient(timeout))

    def ack(self, delivery, outcome=1, **fields):
        """Publishes an acknowledgement; the message info, whose PUBACK wait_published waits for."""
        return self.publish(self.pb.Acknowledgement(command_id=delivery.command_id, outcome=outcome, **fields))

    def publish(self, acknowledgement):
        return self.client.publish(f"devices/{self.id}/acks", acknowledgement.SerializeToString(), qos=1)

    def wait_published(self, info, timeout=20):
        """Until the PUBACK has come."""
        with self.lock:
            event = self.published.setdefault(info.mid, threading.Event())
        assert event.wait(patient(timeout)), "no PUBACK"

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def drop(self):
        """Closes the socket without DISCONNECT."""
        self.client.loop_stop()
        sock = self.client.socket()
        if sock:
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
