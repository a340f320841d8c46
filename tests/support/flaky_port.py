"""A way to a server that a test can close and open again: everything else stays as it is."""

import contextlib
import socket
import threading


class Door:
    """Forwards connections to a port of this machine while it is open; use it as a context."""

    def __init__(self, port):
        self.target = port
        self.listening = None
        self.connections = set()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        """From now on connections are forwarded."""
        self.listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._start(self._accept, self.listening)

    def close(self):
        """From now on connections are refused, and those that were there are cut."""
        listening, self.listening = self.listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes up who waits in `accept`
            listening.close()
        for one in list(self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening):
        while self.listening is listening:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self.connections |= {near, far}
            ends = [
                self._start(self._forward, near, far),
                self._start(self._forward, far, near),
            ]
            self._start(self._end, ends, near, far)

    def _forward(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _end(self, ends, near, far):
        for thread in ends:
            thread.join()
        for one in (near, far):
            one.close()
            self.connections.discard(one)

    @staticmethod
    def _start(work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread
