"""Where processes join a run: they connect, prove that they know its secret, and get a seat."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from epochal.data.errors import Unavailable
from epochal.tasks.joining.connection import Refused, admitted, shown, version
from epochal.tasks.joining.seat import Joined, Seat
from epochal.tasks.trainer.channel import Channel, Message


class Listener:
    """Listens until it is closed. place: as `place_of` gives it, of the run's buffer.

    workers: how many processes an engine on another machine shall start. refused: is told why
    somebody was not let in. printed: called in a thread with each line that their trainers print.
    """

    def __init__(
        self,
        address: tuple[str, int],
        token: str,
        *,
        place: Message,
        workers: int,
        refused: Callable[[str], None],
        printed: Callable[[str], None],
    ) -> None:
        self._token = token
        self._welcome: Message = {"type": "welcome", "place": place, "workers": workers}
        self._refused = refused
        self._printed = printed
        self._seats: list[Seat] = []
        self._ended = False
        self._changing = threading.Lock()
        self._woken = os.pipe()
        for end in self._woken:
            os.set_blocking(end, False)
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self._socket = socket.create_server(address, family=family, backlog=1024)
        except OSError as error:
            raise Unavailable(
                f"launch.address: cannot listen at {shown(address)}: {error.strerror}; expected an "
                "address of this machine and a port that nobody else listens at"
            ) from error
        self._thread = threading.Thread(target=self._accept, name="trainer_accept", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port, *_ = self._socket.getsockname()
        return str(host), int(port)

    @property
    def seats(self) -> list[Seat]:
        """Those who have joined and are still there."""
        with self._changing:
            return [seat for seat in self._seats if not seat.gone.is_set()]

    def fileno(self) -> int:
        """A descriptor that can be read from once `seats` has changed."""
        return self._woken[0]

    def note_changes(self) -> None:
        """What has changed so far is known."""
        with suppress(BlockingIOError):
            while os.read(self._woken[0], 1 << 10):
                pass

    def close(self) -> None:
        """Tells all that the run has ended, and listens no more."""
        with self._changing:
            self._ended = True
            seats, self._seats = self._seats, []
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._socket.close()
        for seat in seats:
            seat.tell({"type": "end"})
        for seat in seats:
            seat.close()
        with self._changing:
            for end in self._woken:
                os.close(end)

    # --- the threads --------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connected, (host, *_) = self._socket.accept()
            except OSError:
                return
            threading.Thread(
                target=self._admit, args=(connected, host), name="trainer_admit", daemon=True
            ).start()

    def _admit(self, connected: socket.socket, host: str) -> None:
        try:
            channel = admitted(connected, self._token)
        except Refused as error:
            self._refused(f"a process at {host} wanted to join and was refused: {error}")
            return
        try:
            self._seat(channel)
        except (EOFError, OSError):  # it has gone again
            channel.close()

    def _seat(self, channel: Channel) -> None:
        hello, _ = channel.receive()
        if hello["version"] != version():
            reason = f"it has epochal {hello['version']}, and the run {version()}"
            self._refused(f"a process on {hello['host']} wanted to join and was refused: {reason}")
            channel.send({"type": "refused", "reason": reason})
            channel.close()
            return
        channel.send(self._welcome)
        if hello["kind"] != "worker":
            channel.close()
            return
        seated, _ = channel.receive()
        joined = Joined(hello["host"], hello["pid"], hello["place"], seated["here"])
        with self._changing:
            if self._ended:
                channel.send({"type": "end"})
                channel.close()
                return
            seat = Seat(channel, joined, left=self._wake, printed=self._printed)
            self._seats.append(seat)
        self._wake()

    def _wake(self) -> None:
        with self._changing:
            if not self._ended:
                with suppress(BlockingIOError):
                    os.write(self._woken[1], b"!")
