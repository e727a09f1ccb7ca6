"""A TCP proxy between the product and its database that delays, drops and cuts connections."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

CHUNK_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy: the writers of both ends."""

    product: asyncio.StreamWriter
    database: asyncio.StreamWriter
    half_open: bool = False

    def cut(self) -> None:
        """Abort both ends."""
        for end in (self.product, self.database):
            end.transport.abort()


class Proxy:
    """A TCP proxy on a free port that forwards everything until a fault is switched on."""

    def __init__(self, target: int) -> None:
        """`target` is the database's port."""
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
        """Delay everything by this many seconds in each direction."""
        self._delay = seconds
        yield
        self._delay = 0.0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Hold everything back for the length of the block; connections stay open."""
        self._flowing.clear()
        yield
        self._flowing.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut every existing and every new connection."""
        self._refusing = True
        self.cut()
        yield
        self._refusing = False

    @contextmanager
    def cutting_after(self, *marks: bytes, every: int) -> Iterator[None]:
        """Cut the connection after every n-th message with one of `marks`, before its reply."""
        self._marks, self._every = marks, every
        yield
        self._marks = ()

    @contextmanager
    def keeping_open(self) -> Iterator[None]:
        """Forward the database's last bytes, but not the closing of the connection."""
        self._keeping_open = True
        yield
        self._keeping_open = False

    def cut(self) -> None:
        """Cut all existing connections."""
        for link in list(self._links):
            link.cut()

    def close_towards_product(self) -> None:
        """Half-close: tell the product that the database sends no more."""
        for link in self._links:
            link.product.write_eof()

    def lose_database(self) -> None:
        """Half-open connections: close the database's end without telling the product."""
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
                target.write_eof()  # the reader still processes what it received before
        except (OSError, RuntimeError):
            pass  # the receiving end is closed

    def _is_cut_after(self, data: bytes) -> bool:
        if not any(mark in data for mark in self._marks):
            return False
        self._marked += 1
        if self._marked % self._every:
            return False
        self.cuts += 1
        return True
