"""A TCP proxy on loopback that cuts every connection after a random number of bytes.

The bytes of both directions count, so a cut falls inside a request, inside an answer or between them. What follows is
drawn too: a reset, an end in order, or silence (nothing passes any more, both sides stay open) and a reset later.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter

BUFFER_BYTES = 16 << 10
MANNERS = ("reset", "end", "silence")


def end(side, reset):
    if reset and not side.is_closing():
        # No lingering: the kernel sends a reset.
        raw = side.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # At once, without waiting for bytes that nobody takes.
    side.transport.abort()


class CuttingProxy:
    """Passes each of `listeners` on to the server beside it, in a thread of its own."""

    def __init__(self, pairs, seed, smallest, largest, longest_silence):
        self.random = random.Random(seed)
        self.bytes, self.longest_silence = (smallest, largest), longest_silence
        self.cuts, self.calm = Counter(), False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        for listener, server in pairs:
            asyncio.run_coroutine_threadsafe(self.serve(listener, server), self.loop).result(10)

    async def serve(self, listener, server):
        await asyncio.start_server(lambda reader, writer: self.connection(reader, writer, server), sock=listener)

    def draw(self):
        """After how many bytes, evenly on a logarithmic scale, and how."""
        smallest, largest = self.bytes
        return int(smallest * (largest / smallest) ** self.random.random()), self.random.choice(MANNERS)

    async def connection(self, reader, writer, server):
        left, manner = self.draw()
        try:
            far_reader, far_writer = await asyncio.open_connection(*server)
        except OSError:
            writer.close()
            return
        state = {"left": left}
        copies = [
            asyncio.ensure_future(self.copy(reader, far_writer, state)),
            asyncio.ensure_future(self.copy(far_reader, writer, state)),
        ]
        done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        if any(one.result() == "cut" for one in done):
            self.cuts[manner] += 1
            if manner == "silence":
                # Neither side hears of the other.
                for one in copies:
                    one.cancel()
                await asyncio.sleep(self.random.uniform(0.2, self.longest_silence))
        for one in copies:
            one.cancel()
        for side in (writer, far_writer):
            end(side, reset=manner != "end")

    async def copy(self, source, target, state):
        try:
            while some := await source.read(BUFFER_BYTES):
                if not self.calm and len(some) >= state["left"]:
                    target.write(some[: state["left"]])
                    await target.drain()
                    return "cut"
                state["left"] -= len(some)
                target.write(some)
                await target.drain()
        except OSError:
            pass
        return "ended"
