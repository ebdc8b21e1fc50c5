"""A unix socket in front of another one, that keeps back what goes one way for as long as it is told to."""
import os
import select
import socket
import threading

from .patience import patient


class Wire:
    """Connections to `path` go on to `target`. hold("up") keeps what clients send, hold("down") what is answered."""

    def __init__(self, path, target):
        self.path, self.target = str(path), str(target)
        self.changed = threading.Condition()
        self.held = {"up": False, "down": False}
        self.begin = {"up": b"", "down": b""}
        self.kept = {"up": b"", "down": b""}
        self.pairs = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"unix://{self.path}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.target)
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            threading.Thread(target=self._carry, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, "down"), daemon=True).start()

    def _held(self, way, mine, got):
        """Whether `got` is to be kept back, behind what is already."""
        with self.changed:
            if not self.held[way] or not (mine or self.begin[way] in got):
                return False
            self.kept[way] += got
            self.changed.notify_all()
            return True

    def _carry(self, source, sink, way):
        mine = b""
        try:
            while True:
                ready, _, _ = select.select([source], [], [], 0.02 if mine else None)
                got = source.recv(65536) if ready else b""
                if ready and not got:
                    break
                if self._held(way, mine, got):
                    mine += got
                elif mine or got:
                    sink.sendall(mine + got)
                    mine = b""
        except (OSError, ValueError):
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def hold(self, way, begin=b""):
        """From the first piece on that has `begin` in it."""
        with self.changed:
            self.held[way], self.kept[way], self.begin[way] = True, b"", begin

    def wait_held(self, part, way="up", timeout=20):
        """Until something with `part` in it is held back."""
        with self.changed:
            assert self.changed.wait_for(lambda: part in self.kept[way], patient(timeout)), f"nothing with {part} within {timeout} s"

    def release(self, way):
        with self.changed:
            self.held[way] = False
            self.changed.notify_all()

    def close(self):
        self.release("up")
        self.release("down")
        self.listener.close()
        os.unlink(self.path)
        for pair in self.pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()
