"""Read XML feeds (RSS, Atom, Google's and plain ones) in pieces, so that their size does not matter."""

import html
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import IO, Any
from xml.parsers import expat  # Declarations of entities are refused below.

from shopassist.catalog.importer.columns import count_fields
from shopassist.catalog.importer.records import FileRow, read_record
from shopassist.errors import InvalidInputError

CHUNK_BYTES = 64 << 10
SURVEYED_BYTES = 1 << 20
MAX_ELEMENT_DEPTH = 100
SINGLE_ELEMENTS = frozenset({"id", "title", "link", "description", "price", "sale_price", "brand", "name"})
"""Of several of these in one product the first counts."""
NAMED_ELEMENTS = frozenset({"param", "attribute", "property", "feature"})
Path = tuple[str, ...]


def read_xml(content: IO[bytes], encoding: str) -> Iterator[FileRow]:
    """Yield the rows of the element that looks most like a product. Raise `InvalidInputError` if it is not XML."""
    start = content.read(SURVEYED_BYTES)
    stated = None if "encoding=" in start[:200].decode("latin-1") else {"cp1252": "windows-1252"}.get(encoding)
    survey = _Survey()
    parser = _create_parser(stated)
    parser.StartElementHandler, parser.EndElementHandler = survey.start, survey.end
    _parse(parser, start, is_last=len(start) < SURVEYED_BYTES)
    path = survey.find_product()
    collector = _Collector(path)
    parser = _create_parser(stated)
    parser.StartElementHandler, parser.EndElementHandler = collector.start, collector.end
    parser.CharacterDataHandler = collector.add_text
    parser.SkippedEntityHandler = lambda name, _: collector.add_text(html.unescape(f"&{name};"))
    collector.parser = parser
    for chunk in _iterate_chunks(start, content):
        try:
            _parse(parser, chunk, is_last=not chunk)
        finally:
            found, collector.found = collector.found, []
            for line, record in found:
                yield from read_record(line, record)


def _iterate_chunks(start: bytes, content: IO[bytes]) -> Iterator[bytes]:
    for position in range(0, len(start), CHUNK_BYTES):
        yield start[position : position + CHUNK_BYTES]
    while chunk := content.read(CHUNK_BYTES):
        yield chunk
    yield b""


def _create_parser(encoding: str | None) -> Any:
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.EntityDeclHandler = _refuse_entity
    parser.UseForeignDTD(True)  # So that names of HTML, as &nbsp;, are passed to the handler of skipped entities.
    return parser


def _refuse_entity(name: str, *_: Any) -> None:
    raise InvalidInputError(f"The XML file declares the entity {name!r}, which is not accepted.")


def _parse(parser: Any, chunk: bytes, *, is_last: bool) -> None:
    try:
        parser.Parse(chunk, is_last)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InvalidInputError(f"The file is not well-formed XML: {error}.") from None


def _strip_prefix(name: str) -> str:
    return name.rpartition(":")[2]


class _Survey:
    """Counts the elements at each path and the names of their children."""

    def __init__(self) -> None:
        self.path: Path = ()
        self.counts: Counter[Path] = Counter()
        self.children: defaultdict[Path, set[str]] = defaultdict(set)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.path) >= MAX_ELEMENT_DEPTH:
            raise InvalidInputError("The elements of the XML file are nested too deeply.")
        self.children[self.path].add(_strip_prefix(name))
        self.path = (*self.path, _strip_prefix(name))
        self.counts[self.path] += 1
        self.children[self.path].update(map(_strip_prefix, attributes))

    def end(self, _: str) -> None:
        self.path = self.path[:-1]

    def find_product(self) -> Path:
        rated = [(count_fields(list(self.children[path])), path) for path in self.counts]
        candidates = [
            (("price" in fields), len(fields), count, path)
            for fields, path in rated
            if "title" in fields
            for count in (self.counts[path],)
        ]
        if not candidates:
            raise InvalidInputError("The XML file holds no element that looks like a product: none has a title.")
        return max(candidates, key=lambda found: (found[0], found[1], found[2], -len(found[3])))[-1]


class _Collector:
    """Collects the elements at `path` as records: text, or an object of children and attributes."""

    def __init__(self, path: Path) -> None:
        self.wanted = path
        self.path: Path = ()
        self.open: list[tuple[dict[str, Any], list[str], int]] = []
        self.found: list[tuple[int, dict[str, Any]]] = []
        self.parser: Any = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path = (*self.path, _strip_prefix(name))
        if self.open or self.path == self.wanted:
            given = {_strip_prefix(key): value for key, value in attributes.items() if not key.startswith("xmlns")}
            self.open.append((given, [], self.parser.CurrentLineNumber))
        if len(self.path) > MAX_ELEMENT_DEPTH:
            raise InvalidInputError("The elements of the XML file are nested too deeply.")

    def add_text(self, text: str) -> None:
        if self.open:
            self.open[-1][1].append(text)

    def end(self, name: str) -> None:
        self.path = self.path[:-1]
        if not self.open:
            return
        members, texts, line = self.open.pop()
        text = "".join(texts).strip()
        if not self.open:
            self.found.append((line, members))
            return
        _insert(self.open[-1][0], _strip_prefix(name), members, text)


def _insert(parent: dict[str, Any], name: str, members: dict[str, Any], text: str) -> None:
    """Put an element into the record of its parent."""
    value: Any = {**members, "value": text} if members and text else members or text
    if "href" in members:
        if members.get("rel", "alternate") != "alternate":
            return
        value = members["href"]
    elif name in NAMED_ELEMENTS and "name" in members and text:
        unit = members.get("unit")
        name, value = members["name"], f"{text} {unit}" if unit else text
    if not parent.get(name):
        parent[name] = value
    elif name not in SINGLE_ELEMENTS and value:
        earlier = parent[name]
        parent[name] = [*earlier, value] if isinstance(earlier, list) else [earlier, value]
