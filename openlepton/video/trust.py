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

_MANY = 512  # packets that never became a frame are forgotten after so many others


class Trust:
    """Follows the packets of a stream, in the order of decoding, and its frames, in the order of showing."""

    def __init__(self) -> None:
        self._group = 0  # of the newest packet
        self._shown = 0  # of the newest frame
        self._groups: dict[int, int] = {}  # by timestamp, of packets whose frame has not come yet
        self._starts: dict[int, int] = {}  # timestamp of each group's first frame
        self._bad: set[int] = set()
        self._held: deque[VideoFrame] = deque()

    def packet(self, packet: "Packet[VideoStream]") -> None:
        """Note a packet before it is decoded."""
        if packet.is_keyframe:
            self._group += 1
        if packet.pts is not None:
            if packet.is_keyframe:
                self._starts[self._group] = packet.pts
            self._groups[packet.pts] = self._group
        if packet.is_corrupt:
            self._bad.add(self._group)
        if len(self._groups) > _MANY:
            del self._groups[next(iter(self._groups))]

    def failed(self) -> None:
        """Note that decoding failed; with several threads, any of the packets on their way may be to blame."""
        self._bad.update(range(self._shown, self._group + 1))

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
                self._bad.add(self._group_of(frame))
            while len(self._held) > depth:
                out.append(self._release())
        return out

    def rest(self) -> "list[tuple[VideoFrame, bool]]":
        """Return the last frames and whether to trust them."""
        return [self._release() for _ in range(len(self._held))]

    def _group_of(self, frame: "VideoFrame") -> int:
        return self._group if frame.pts is None else self._groups.get(frame.pts, self._group)

    def _release(self) -> "tuple[VideoFrame, bool]":
        frame = self._held.popleft()
        group = self._shown = self._group_of(frame)
        if frame.pts is not None:
            self._groups.pop(frame.pts, None)
        # Frames shown before their group's first, but decoded after it, are predicted from the group before as well.
        early = frame.pts is not None and frame.pts < self._starts.get(group, frame.pts)
        trusted = group not in self._bad and not (early and group - 1 in self._bad)
        for done in [old for old in (*self._starts, *self._bad) if old < group - 1]:
            self._starts.pop(done, None)
            self._bad.discard(done)
        return frame, trusted
