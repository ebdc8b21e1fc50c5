"""An HTTPS server that takes web hooks: a stock one, that keeps what it got and answers as it is told."""
import base64
import hashlib
import hmac
import http.server
import json
import queue
import ssl
import threading

from .patience import patient


class Hook:
    """One request as it came."""

    def __init__(self, path, headers, body):
        self.path, self.headers, self.body = path, headers, body
        self.id, self.json = headers["webhook-id"], json.loads(body)
        self.data, self.type = self.json["data"], self.json["type"]
        self.batch, self.event = int(self.data.get("batchId", 0)), int(self.data["id"])

    def signed_with(self, secret):
        """Whether one of its signatures is of this secret, as Standard Webhooks says."""
        assert secret.startswith("whsec_")
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        mac = hmac.new(base64.b64decode(secret[6:]), content, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(mac).decode()}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    """`answer(hook)` gives the status, or a (status, headers) pair, and may take its time; None closes without an answer."""

    def __init__(self, certificates, answer=lambda hook: 204):
        self.got, self.all, self.answer = queue.Queue(), [], answer
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                hook = Hook(self.path, self.headers, body)
                receiver.all.append(hook)
                answer = receiver.answer(hook)
                receiver.got.put(hook)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """A peer that went away is no error."""

        self.server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path="/"):
        return f"https://127.0.0.1:{self.port}{path}"

    def take(self, count, timeout=30):
        """The next `count` requests."""
        return [self.got.get(timeout=patient(timeout)) for _ in range(count)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
