"""What lies between the product and its database: a network that delays, falls silent, and cuts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

CHUNK_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy, by the ends that are written to."""

    product: asyncio.StreamWriter
    database: asyncio.StreamWriter
    half_open: bool = False

    def cut(self) -> None:
        """Both ends lose it at once."""
        for end in (self.product, self.database):
            end.transport.abort()


class Proxy:
    """A TCP proxy on a port of its own, which lets everything pass until it is told otherwise."""

    def __init__(self, target: int) -> None:
        """`target` is the port of the database."""
        self.port = 0
        self.cuts = 0
        self._target = target
        self._delay = 0.0
        self._marks: tuple[bytes, ...] = ()
        self._every = self._marked = 0
        self._refusing = self._keeping_open = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Listen for the length of the block."""
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._serving, return_exceptions=True)

    @contextmanager
    def delaying(self, seconds: float) -> Iterator[None]:
        """Whatever is sent arrives so much later, each way."""
        self._delay = seconds
        yield
        self._delay = 0.0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """A black hole: connections stay open, and what was sent arrives when the block is over, if at all."""
        self._flowing.clear()
        yield
        self._flowing.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every connection is cut, and so is every new one."""
        self._refusing = True
        self.cut()
        yield
        self._refusing = False

    @contextmanager
    def cutting_after(self, *marks: bytes, every: int) -> Iterator[None]:
        """The database gets all, but the answer to every so many-th message with one of `marks` in it is cut off."""
        self._marks, self._every = marks, every
        yield
        self._marks = ()

    @contextmanager
    def keeping_open(self) -> Iterator[None]:
        """What the database says last arrives, but not that it has closed the connection."""
        self._keeping_open = True
        yield
        self._keeping_open = False

    def cut(self) -> None:
        """Cut what is there."""
        for link in list(self._links):
            link.cut()

    def close_towards_product(self) -> None:
        """A half-close: the product is told that the database sends no more."""
        for link in self._links:
            link.product.write_eof()

    def lose_database(self) -> None:
        """Half-open connections: the database's end is gone, and the product is not told."""
        for link in self._links:
            link.half_open = True
            link.database.transport.abort()

    def _begin(self, from_product: asyncio.StreamReader, to_product: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._serve(from_product, to_product))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, from_product: asyncio.StreamReader, to_product: asyncio.StreamWriter) -> None:
        if self._refusing:
            to_product.transport.abort()
            return
        try:
            from_database, to_database = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_product.transport.abort()
            return
        link = Link(to_product, to_database)
        self._links.add(link)
        try:
            answers = asyncio.create_task(self._pump(from_database, link, to_product))
            await self._pump(from_product, link, to_database)
            await answers
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump(self, source: asyncio.StreamReader, link: Link, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay)
                await self._flowing.wait()
                if link.half_open:
                    continue
                target.write(data)
                await target.drain()
                if target is link.database and self._is_cut_after(data):
                    link.product.transport.abort()
            if not (link.half_open or (self._keeping_open and target is link.product)):
                target.write_eof()  # whoever reads it works off what it has got before
        except (OSError, RuntimeError):
            pass  # the end that was written to is closed

    def _is_cut_after(self, data: bytes) -> bool:
        if not any(mark in data for mark in self._marks):
            return False
        self._marked += 1
        if self._marked % self._every:
            return False
        self.cuts += 1
        return True
