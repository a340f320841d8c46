"""Who may join a run: whoever knows its secret, and speaks as it does."""

import os
import socket
import threading
from multiprocessing.connection import Connection

import pytest

from epochal.data.errors import Unavailable
from epochal.tasks.joining import connection, listener
from epochal.tasks.joining.connection import Refused, connected, greeting, reached
from epochal.tasks.joining.listener import Listener
from epochal.tasks.joining.place import opened, place_of

TOLD = {"host": "there", "pid": 1, "place": 0}


class Listening:
    """A run that listens, with what it says of those that it refuses."""

    def __init__(self, address=("127.0.0.1", 0)):
        self.texts, self.told = [], threading.Event()
        self.file = os.memfd_create("buffer")
        self.listener = Listener(
            address,
            "a secret",
            place=place_of(self.file),
            workers=3,
            refused=self.refused,
            printed=self.texts.append,
        )
        self.address = self.listener.address

    def refused(self, text):
        self.texts.append(text)
        self.told.set()

    def close(self):
        self.listener.close()
        os.close(self.file)


@pytest.fixture
def listening():
    made = Listening()
    yield made
    made.close()


def seated(listening, *, here):
    channel, _ = connected(listening.address, "a secret", within_s=5)
    greeting(channel, kind="worker", told=TOLD)
    channel.send({"type": "seated", "here": here})
    return channel


@pytest.mark.parametrize("token", ["another", "", "a secret "])
def test_a_wrong_secret_is_refused_on_both_sides(token, listening):
    with pytest.raises(Refused):
        connected(listening.address, token, within_s=5)
    assert listening.told.wait(5)
    assert "127.0.0.1 wanted to join and was refused" in listening.texts[0]
    assert listening.listener.seats == []


def test_the_secret_itself_is_never_sent(listening, monkeypatch):
    sent, send = [], Connection._send

    def noted(self, data, *given):
        sent.append(bytes(data))
        return send(self, data, *given)

    monkeypatch.setattr(Connection, "_send", noted)
    channel, _ = connected(listening.address, "a secret", within_s=5)
    channel.close()
    assert sent
    assert b"a secret" not in b"".join(sent)


def test_who_says_nothing_is_let_go(listening, monkeypatch):
    monkeypatch.setattr(connection, "_PROVE_WITHIN_S", 1)
    with socket.create_connection(listening.address) as mute:
        assert listening.told.wait(10)
        mute.settimeout(10)
        while mute.recv(1 << 10):
            pass


def test_who_speaks_something_else_is_refused(listening):
    with socket.create_connection(listening.address) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert listening.told.wait(5)
    assert "was refused" in listening.texts[0]


def test_another_version_is_refused_by_name(listening, monkeypatch):
    channel, _ = connected(listening.address, "a secret", within_s=5)
    monkeypatch.setattr(connection, "version", lambda: "0.0.9")
    with pytest.raises(Refused, match="it has epochal 0.0.9, and the run 0."):
        greeting(channel, kind="worker", told=TOLD)
    assert "there wanted to join" in listening.texts[0]


def test_an_engine_is_told_how_many_processes_it_is_to_start_and_takes_no_seat(listening):
    channel, own = connected(listening.address, "a secret", within_s=5)
    assert greeting(channel, kind="engine", told=TOLD)["workers"] == 3
    assert own == "127.0.0.1"
    assert listening.listener.seats == []


def test_a_seat_is_free_again_once_its_connection_has_ended(listening):
    channel = seated(listening, here=False)
    (seat,) = wait_seats(listening, 1)
    assert not seat.joined.here
    assert seat.joined.host == "there"
    channel.close()
    assert seat.gone.wait(5)
    assert listening.listener.seats == []


def wait_seats(listening, count):
    never = threading.Event()
    for _ in range(500):
        if len(listening.listener.seats) == count:
            break
        never.wait(0.01)
    return listening.listener.seats


def test_all_that_have_a_seat_are_told_of_the_end():
    made = Listening()
    channel = seated(made, here=True)
    wait_seats(made, 1)
    made.close()
    assert channel.receive()[0] == {"type": "end"}


def test_nobody_there_is_an_error_after_the_time_that_was_given(listening, monkeypatch):
    monkeypatch.setattr(connection, "_TRY_EVERY_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with pytest.raises(ConnectionRefusedError):
        reached(address, "a secret", within_s=0.1)


def test_an_address_that_is_taken_is_told_with_its_field(listening):
    with pytest.raises(Unavailable, match=rf"launch.address: .*127.0.0.1:{listening.address[1]}"):
        Listening(listening.address)


def test_a_file_of_another_process_is_opened_where_both_see_the_same(listening):
    descriptor = opened(place_of(listening.file))
    assert os.path.samestat(os.fstat(descriptor), os.fstat(listening.file))
    os.close(descriptor)


@pytest.mark.parametrize(
    "other", [{"boot": "another"}, {"mounts": "another"}, {"file": [0, 0]}, {"pid": 1 << 30}]
)
def test_on_another_machine_there_is_no_such_file(other, listening):
    assert opened({**place_of(listening.file), **other}) is None


def test_a_listener_speaks_of_an_ipv6_address_in_brackets():
    assert listener.shown(("::1", 80)) == "[::1]:80"
