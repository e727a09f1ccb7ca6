"""Rows as they stand in a snapshot, checked a chunk at a time and made ready to be copied into the database."""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Date, DateTime, Integer, Numeric, String, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from shopassist.models.snapshot import BY_NAME, Kind
from shopassist.models.text import storable

BEGINNING = re.compile(rb'\s*\{\s*"kind"\s*:\s*"([a-z_]+)"')
UUID = "^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$"
NO_KIND = 'the line does not begin with {"kind": "…"'
SEVERAL = "more than one row on the line"
NUL = "a text has the NUL character"
LONGEST_WHERE = 80

RAW = "raw"
"""The column for the text of a row with JSON in it: PostgreSQL reads that itself, so no figure is rounded."""

PLAIN: tuple[tuple[type, CoreSchema], ...] = (
    (JSONB, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())),
    (ARRAY, core_schema.list_schema(core_schema.str_schema(strict=True))),
    (Uuid, core_schema.str_schema(strict=True, pattern=UUID)),
    (Boolean, core_schema.bool_schema(strict=True)),
    (DateTime, core_schema.datetime_schema(strict=True, tz_constraint="aware")),
    (Date, core_schema.date_schema(strict=True)),
    (BigInteger, core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1)),
    (Integer, core_schema.int_schema(strict=True, ge=-(2**31), le=2**31 - 1)),
)
"""What a column of a type can hold; the first that fits."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is not imported, and why; whose it is, where that can be told."""

    line: int
    kind: str | None
    owner: str | None
    reason: str


@dataclass(slots=True)
class Checked:
    """The good rows of a chunk, each with its line's number ahead, by kind, and the rejects."""

    records: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


def checked(chunk: bytes, first_line: int, subject_key: bool) -> Checked:
    """The rows of whole lines. `subject_key`: whether hashes of subjects in the file are under this server's key."""
    result = Checked()
    grouped: dict[str, tuple[list[int], list[bytes]]] = {}
    has_nul = b"\\u0000" in chunk
    for line, text in enumerate(chunk.removesuffix(b"\n").split(b"\n"), first_line):
        match = BEGINNING.match(text)
        name = match[1].decode() if match else ""
        if name not in BY_NAME:
            reason = f"there is no kind {name}" if match else NO_KIND
            result.rejects.append(Reject(line, None, None, reason))
        elif BY_NAME[name].keyed and not subject_key:
            result.rejects.append(Reject(line, name, None, 'hashed under a key that the header does not name ("key")'))
        elif has_nul and b"\\u0000" in text and _says_nul(text):
            result.rejects.append(Reject(line, name, _owner_in(BY_NAME[name], text), NUL))
        else:
            lines, texts = grouped.setdefault(name, ([], []))
            lines.append(line)
            texts.append(text)
    for name, (lines, texts) in grouped.items():
        records, rejects = _rows(BY_NAME[name], lines, texts)
        result.records[name] = records
        result.rejects += rejects
    return result


def copied(kind: Kind) -> list[str]:
    """The columns that a record of `checked` has, in order."""
    plain = [name for name in _fields(kind) if not isinstance(kind.table.columns[name].type, JSONB)]
    return ["line", *plain, *([RAW] if has_json(kind) else [])]


def has_json(kind: Kind) -> bool:
    """Whether a row has JSON in it."""
    return any(isinstance(column.type, JSONB) for column in kind.table.columns)


def _rows(kind: Kind, lines: Sequence[int], texts: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], list[Reject]]:
    validator = _validator(kind.name)
    rejects: list[Reject] = []
    rows: list[dict[str, Any]] = []
    with suppress(ValidationError):
        rows = validator.validate_json(b"[" + b",".join(texts) + b"]")
    if len(rows) != len(lines):  # one by one, to see which of them it is
        rows, good = [], []
        for line, text in zip(lines, texts, strict=True):
            try:
                [row] = validator.validate_json(b"[" + text + b"]")
            except ValueError as error:  # pydantic's, or there is more than one
                reason = _reason(error) if isinstance(error, ValidationError) else SEVERAL
                rejects.append(Reject(line, kind.name, _owner_in(kind, text), reason))
            else:
                rows.append(row)
                good.append((line, text))
        lines, texts = [line for line, _ in good], [text for _, text in good]
    for name, source in kind.derived.items():
        for row in rows:
            if row[name] is None:
                row[name] = row[source]
    names = [name for name in copied(kind)[1:] if name != RAW]
    values: Iterable[tuple[Any, ...]] = map(itemgetter(*names), rows)
    if has_json(kind):
        pairs = zip(lines, values, texts, strict=True)
        return [(line, *value, text.decode()) for line, value, text in pairs], rejects
    return [(line, *value) for line, value in zip(lines, values, strict=True)], rejects


def _fields(kind: Kind) -> list[str]:
    return ["id", *kind.columns] if kind.names_id else list(kind.columns)


@cache
def _validator(name: str) -> SchemaValidator:
    """Checks a JSON array of rows of a kind, by what the columns of its table can hold."""
    kind = BY_NAME[name]
    fields = {"kind": core_schema.typed_dict_field(core_schema.literal_schema([name]))}
    if kind.has_identity and not kind.names_id:
        fields["id"] = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
    for column in _fields(kind):
        fields[column] = core_schema.typed_dict_field(_column_schema(kind, kind.table.columns[column]))
    return SchemaValidator(core_schema.list_schema(core_schema.typed_dict_schema(fields, extra_behavior="forbid")))


def _column_schema(kind: Kind, column: Column[Any]) -> CoreSchema:
    schema = _type_schema(kind, column)
    if column.name in kind.derived or (column.nullable and column.name not in kind.defaults):
        return core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)
    if column.name in kind.defaults:
        default = kind.defaults[column.name]
        schema = core_schema.nullable_schema(schema) if default is None else schema
        return core_schema.with_default_schema(schema, default=default)
    return schema


def _type_schema(kind: Kind, column: Column[Any]) -> CoreSchema:
    if column.name in kind.words:
        return core_schema.literal_schema([str(word) for word in kind.words[column.name]])
    type_ = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(type_, Numeric):
        return core_schema.decimal_schema(max_digits=type_.precision, decimal_places=type_.scale)
    if isinstance(type_, String):
        least = 1 if column.name == kind.owner else None
        return core_schema.str_schema(strict=True, min_length=least, max_length=type_.length)
    return next(schema for one, schema in PLAIN if isinstance(type_, one))


def _reason(error: ValidationError) -> str:
    """What is wrong with a row, without what it says."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"][1:])[:LONGEST_WHERE]
    said = problem["msg"].partition(" at line ")[0]
    return f"{where}: {said}" if where else said


def _owner_in(kind: Kind, text: bytes) -> str | None:
    """Whose a row is that is not a good one, where it tells."""
    try:
        return storable(json.loads(text)[kind.owner])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _says_nul(text: bytes) -> bool:
    """Whether the escape of NUL stands for NUL, rather than behind an escaped backslash."""
    try:
        return _has_nul(json.loads(text))
    except ValueError:
        return False


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))
