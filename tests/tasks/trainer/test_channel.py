"""The channel: what has come is received before the end, and nobody else's file is written to."""

import os
import socket

import pytest

from epochal.tasks.trainer.channel import Channel


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    made = Channel(one.detach()), Channel(other.detach())
    yield made
    for end in made:
        end.close()


def test_messages_come_as_they_were_sent_with_their_bytes(ends):
    ends[0].send({"type": "one"})
    ends[0].send({"type": "two"}, b"\x00\xff")
    assert ends[1].has_message()
    assert ends[1].receive() == ({"type": "one"}, None)
    assert ends[1].receive() == ({"type": "two"}, b"\x00\xff")
    assert not ends[1].has_message()


def test_what_came_before_the_end_is_received_first(ends):
    ends[0].send({"type": "last"})
    ends[1].receive_no_more()  # the other end stays open, as in a child that was forked there
    assert ends[1].receive() == ({"type": "last"}, None)
    assert ends[1].has_message()
    with pytest.raises(EOFError):
        ends[1].receive()


def test_a_file_that_lies_under_the_channels_number_since_is_not_written_to(ends, tmp_path):
    number = ends[0].fileno()
    kept = os.dup(number)
    opened = os.open(tmp_path / "theirs", os.O_CREAT | os.O_RDWR)
    os.dup2(opened, number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ends[0].send({"type": "lost"})
    assert (tmp_path / "theirs").read_bytes() == b""
    for one in (kept, opened):
        os.close(one)
