"""Complete the rows of Shopify's export: a product's further variants and pictures are rows without its title."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from shopassist.catalog.importer.records import FileRow

OWN_COLUMNS = ("Variant ", "Image ")
OPTION_VALUES = ("Option1 Value", "Option2 Value", "Option3 Value")
SINGLE_VARIANT = "Default Title"


def complete_rows(rows: Iterator[FileRow]) -> Iterator[FileRow]:
    """Yield rows with a `source_id` (handle and options); a further variant inherits what its product says.

    A row with only a picture is marked as repeated.
    """
    product: Mapping[str, Any] = {}
    for row in rows:
        values = row.values
        if values is None:
            yield row
        elif values.get("Title"):
            product = values
            yield replace(row, values={**values, "source_id": values["Handle"]})
        elif not values.get("Handle") or values["Handle"] != product.get("Handle"):
            yield replace(row, values={**values, "source_id": values.get("Handle")})
        elif not any(values.get(name) for name in ("Variant Price", "Variant SKU", *OPTION_VALUES)):
            yield replace(row, is_repeated=True)
        else:
            inherited = {n: v for n, v in product.items() if not n.startswith(OWN_COLUMNS) and n not in OPTION_VALUES}
            own = {name: value for name, value in values.items() if value not in ("", None) or name not in inherited}
            options = [str(values[n]) for n in OPTION_VALUES if values.get(n) not in ("", None, SINGLE_VARIANT)]
            yield replace(row, values={**inherited, **own, "source_id": "/".join([values["Handle"], *options])})
