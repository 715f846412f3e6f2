import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from openlepton.serve.frames import Unpacker, pack, receive, send

HEADS = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "sizes"),
    st.none() | st.integers() | st.text(max_size=9),
    max_size=4,
)
PARTS = st.lists(st.binary(max_size=300), max_size=4)


@given(messages=st.lists(st.tuples(HEADS, PARTS), max_size=4), cut=st.integers(1, 50))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(messages, cut):
    data = b"".join(b"".join((pack(head, parts), *parts)) for head, parts in messages)
    unpacker, found = Unpacker(), []
    for start in range(0, len(data), cut):
        found += unpacker.feed(data[start : start + cut])
    assert [(frame.head, list(frame.parts)) for frame in found] == messages


def test_a_message_larger_than_the_line_s_buffer_goes_through_and_the_end_is_told():
    ours, theirs = socket.socketpair()
    large = bytes(range(256)) * 20_000
    sender = threading.Thread(target=lambda: (send(ours, {"id": 1}, [large, b""]), ours.close()))
    sender.start()
    frame = receive(theirs)
    assert frame.head == {"id": 1}
    assert frame.parts == (large, b"")
    assert receive(theirs) is None
    sender.join()
    theirs.close()
