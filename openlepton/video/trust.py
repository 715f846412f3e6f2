"""Which decoded frames are what was encoded.

Where a stream is damaged, FFmpeg fills in what is missing, says so of that frame, and goes on predicting frames from it without
saying so of them. Frames depend on others back to the last one that stands by itself: together they are a group. From damage on,
the rest of its group is not to be trusted.
"""

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LATE = 3  # FFmpeg flags a packet of a transport stream when what follows it is missing
_MANY = 512  # packets that never became a frame are forgotten after so many others


class Trust:
    """Follows the packets of a stream, in the order of decoding, and its frames, in the order of showing."""

    def __init__(self) -> None:
        self._group = self._count = 0  # of the newest packet
        self._places: dict[int, tuple[int, int]] = {}  # by timestamp, of packets whose frame has not come yet
        self._starts: dict[int, int] = {}  # timestamp of each group's first frame
        self._bad: dict[int, int] = {}  # the first packet of each group that is not to be trusted
        self._doubt = 0  # how many more packets may be those that are damaged
        self._held: deque[VideoFrame] = deque()

    def packet(self, packet: "Packet[VideoStream]") -> None:
        """Note a packet before it is decoded."""
        self._count += 1
        if packet.is_keyframe:
            self._group += 1
        if packet.pts is not None:
            if packet.is_keyframe:
                self._starts[self._group] = packet.pts
            self._places[packet.pts] = self._group, self._count
        if packet.is_corrupt:
            self._doubt = _LATE
        if self._doubt:
            self._doubt -= 1
            # A first frame that is not whole is flagged itself when it is decoded.
            self._spoil(self._group, self._count + packet.is_keyframe)
        if len(self._places) > _MANY:
            del self._places[next(iter(self._places))]

    def failed(self) -> None:
        """Note that decoding failed; with several threads, any of the packets on their way may be to blame."""
        for place in (*self._places.values(), (self._group, self._count)):
            self._spoil(*place)

    def frames(self, decoded: "list[VideoFrame]", depth: int) -> "list[tuple[VideoFrame, bool]]":
        """Return frames and whether to trust them, each as late as a frame that it may be predicted from can still come.

        Args:
            decoded: The frames that came out of a packet.
            depth: By how many places frames may change their order.
        """
        out = []
        for frame in decoded:
            self._held.append(frame)
            if frame.is_corrupt:
                self._spoil(*self._place(frame))
            while len(self._held) > depth:
                out.append(self._release())
        return out

    def rest(self) -> "list[tuple[VideoFrame, bool]]":
        """Return the last frames and whether to trust them."""
        return [self._release() for _ in range(len(self._held))]

    def _spoil(self, group: int, count: int) -> None:
        self._bad[group] = min(count, self._bad.get(group, count))

    def _place(self, frame: "VideoFrame") -> tuple[int, int]:
        newest = self._group, self._count
        return newest if frame.pts is None else self._places.get(frame.pts, newest)

    def _release(self) -> "tuple[VideoFrame, bool]":
        frame = self._held.popleft()
        group, count = self._place(frame)
        if frame.pts is not None:
            self._places.pop(frame.pts, None)
        # Frames shown before their group's first, but decoded after it, are predicted from the group before as well.
        early = frame.pts is not None and frame.pts < self._starts.get(group, frame.pts)
        trusted = count < self._bad.get(group, count + 1) and not (early and group - 1 in self._bad)
        for old in [old for old in (*self._starts, *self._bad) if old < group - 1]:
            self._starts.pop(old, None)
            self._bad.pop(old, None)
        return frame, trusted
