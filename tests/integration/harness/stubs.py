"""Python stubs of the contract (protoc and grpc_python_plugin), and clients that carry a key."""
import glob
import importlib
import os
import subprocess
import sys
import types

from .patience import patient

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
GRPC_PROTOS = ["grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto",
               "grpc/reflection/v1alpha/reflection.proto", "grpc/testing/empty.proto", "grpc/testing/messages.proto",
               "grpc/testing/test.proto"]


def generate(folder):
    """Writes the stubs into `folder`."""
    os.makedirs(folder, exist_ok=True)
    ours = [os.path.relpath(p, os.path.join(ROOT, "proto"))
            for pattern in ("proto/muster/v1/*.proto", "proto/google/rpc/*.proto")
            for p in sorted(glob.glob(os.path.join(ROOT, pattern)))]
    known = [p for p in GRPC_PROTOS if os.path.exists(os.path.join("/usr/share/grpc-proto", p))]
    subprocess.run(["protoc", f"-I{ROOT}/proto", "-I/usr/share/grpc-proto", "-I/usr/include", f"--python_out={folder}",
                    f"--grpc_python_out={folder}", "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin",
                    *ours, *known], check=True)


class _Bound:
    """One service: attributes of its request messages' methods, each called with keyword arguments of the request."""

    def __init__(self, stub, timeout):
        self._stub, self._timeout = stub, timeout

    def __getattr__(self, name):
        method = getattr(self._stub, name)

        def call(request, timeout=self._timeout, **kwargs):
            return method(request, timeout=patient(timeout), **kwargs)
        return call


class Stubs:
    """All generated modules in one place: stubs.pb.SubmitBatchRequest, stubs.client(address, ca, key)."""

    def __init__(self, folder):
        if not os.path.exists(os.path.join(folder, "muster", "v1", "command_service_pb2_grpc.py")):
            generate(folder)
        sys.path.insert(0, str(folder))
        # google is a namespace of several packages here, grpc a package of its own: look into ours as well.
        google = importlib.import_module("google")
        if str(folder) + "/google" not in list(google.__path__):
            google.__path__ = [*google.__path__, os.path.join(folder, "google")]
        grpc = importlib.import_module("grpc")
        grpc.__path__.append(os.path.join(folder, "grpc"))
        self.pb = types.SimpleNamespace()
        self.services = {}
        for name in ("command", "steering", "retry", "delivery", "pending", "command_service", "control_service", "device_service",
                     "admin_service", "event_service"):
            module = importlib.import_module(f"muster.v1.{name}_pb2")
            for key in dir(module):
                if not key.startswith("_"):
                    setattr(self.pb, key, getattr(module, key))
        for name, service in (("command_service", "Command"), ("control_service", "Control"), ("device_service", "Device"), ("admin_service", "Admin"),
                              ("event_service", "Event")):
            module = importlib.import_module(f"muster.v1.{name}_pb2_grpc")
            self.services[service] = getattr(module, f"{service}ServiceStub")
        self.error_details = importlib.import_module("google.rpc.error_details_pb2")
        self.status = importlib.import_module("google.rpc.status_pb2")

    def module(self, name):
        """Any generated module, such as "grpc.health.v1.health_pb2_grpc"."""
        return importlib.import_module(name)

    def channel(self, address, ca, key=None, options=()):
        """A TLS channel, with the key as call credentials."""
        import grpc
        tls = grpc.ssl_channel_credentials(root_certificates=ca)
        if key:
            tls = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(key))
        return grpc.secure_channel(address, tls, options=list(options))

    def client(self, address, ca, key=None, timeout=60, options=()):
        return Client(self, self.channel(address, ca, key, options), timeout)

    def details(self, error):
        """(reason, {field: description}) of an RpcError's google.rpc.Status."""
        reason, violations = None, {}
        for name, value in error.trailing_metadata() or ():
            if name != "grpc-status-details-bin":
                continue
            for any_message in self.status.Status.FromString(value).details:
                info, bad = self.error_details.ErrorInfo(), self.error_details.BadRequest()
                if any_message.Unpack(info):
                    assert info.domain == "muster"
                    reason = info.reason
                elif any_message.Unpack(bad):
                    violations.update({v.field: v.description for v in bad.field_violations})
        return reason, violations

    def metadata(self, error):
        """Metadata of an RpcError's google.rpc.ErrorInfo."""
        for name, value in error.trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                for any_message in self.status.Status.FromString(value).details:
                    info = self.error_details.ErrorInfo()
                    if any_message.Unpack(info):
                        return dict(info.metadata)
        return {}


class Client:
    """The services over one channel."""

    def __init__(self, stubs, channel, timeout):
        self.pb, self.channel = stubs.pb, channel
        self.commands = _Bound(stubs.services["Command"](channel), timeout)
        self.control = _Bound(stubs.services["Control"](channel), timeout)
        self.devices = _Bound(stubs.services["Device"](channel), timeout)
        self.admin = _Bound(stubs.services["Admin"](channel), timeout)
        self.events = _Bound(stubs.services["Event"](channel), timeout)

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
