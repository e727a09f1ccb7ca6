"""Read category paths: "Home > Kitchen > Kettles", "Electronics|Mobiles&Accessories|PowerBanks", "Gear/Bags"."""

import re
from typing import Any

from shopassist.catalog.importer.records import get_text_member

SEPARATORS = (re.compile(r"\s*(?:>+|»|›|→|::)\s*"), re.compile(r"\s*\|\s*"))
SLASH = re.compile(r"\s*/\s*")
LIST_SEPARATOR = re.compile(r"(?<!\\),\s*")
JOINED_WORDS = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
JOINED_AND = re.compile(r"(?<=\w)&(?=\w)")
WRITTEN_LIST = re.compile(r"""^\[\s*["'](.*?)["']\s*\]$""")
PATH_SEPARATOR = " > "


def split_category(value: Any, *, is_list: bool = False, slash_separates: bool = False) -> list[str]:
    """Return the names on the path to a category, the leaf last; several paths (`is_list`) give the longest.

    Entries of a list of objects count as one path.
    """
    if isinstance(value, list):
        entries = [str(text) for entry in value if (text := get_text_member(entry))]
        paths = [_split_path(entry, slash_separates) for entry in entries]
        return max(paths, key=len) if any(len(path) > 1 for path in paths) else entries
    text = WRITTEN_LIST.sub(r"\1", str(get_text_member(value) or "").strip())
    if text.isdecimal():
        return []  # The number of a category in Google's list.
    texts = LIST_SEPARATOR.split(text) if is_list else [text]
    paths = [_split_path(entry.replace("\\,", ","), slash_separates or is_list) for entry in texts]
    return max(paths, key=len, default=[]) if any(len(path) > 1 for path in paths) else paths[-1]


def _split_path(text: str, slash_separates: bool) -> list[str]:
    for separator in SEPARATORS:
        if separator.search(text):
            names = [name for name in separator.split(text) if name]
            joined = len(names) > 1 and not any(" " in name for name in names)
            return [_separate_words(name) for name in names] if joined else names
    if slash_separates or text.count("/") > 1 or " / " in text:
        return [name for name in SLASH.split(text) if name]
    return [text] if text else []


def _separate_words(name: str) -> str:
    return JOINED_AND.sub(" & ", JOINED_WORDS.sub(" ", name))


def is_path_with_slashes(values: list[Any]) -> bool:
    """Return whether a slash separates the categories of these rows: some have two, or share what is before it."""
    texts = {value for value in values if isinstance(value, str) and "/" in value}
    firsts = [text.partition("/")[0].strip() for text in texts]
    return any(text.count("/") > 1 for text in texts) or len(set(firsts)) < len(firsts)
