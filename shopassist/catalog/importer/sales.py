"""Tell from a row whether its product is for sale now, by availability, stock, status and visibility."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from shopassist.catalog.importer.columns import normalise_heading

ROLES = {
    "availability": "availability available in_stock is_in_stock stock_status stock_availability verfugbarkeit "
    "disponibilite disponibilidad disponibilidade उपलब्धता",
    "quantity": "stock stock_quantity quantity qty stock_qty inventory inventory_quantity variant_inventory_qty "
    "lagerbestand bestand menge quantite cantidad existencias quantidade estoque स्टॉक मात्रा",
    "status": "status product_status published visibility visibility_in_catalog catalog_visibility "
    "product_online is_active active active_0_1 enabled is_enabled enable_search is_eligible_search",
    "discontinued": "discontinued is_discontinued",
}
ROLE_BY_NAME = {name: role for role, names in ROLES.items() for name in names.split()}
NO = frozenset({"0", "false", "no", "n", "nein", "non", "falso", "nao"})
OUT_OF_STOCK = NO | frozenset(
    "outofstock soldout unavailable notavailable currentlyunavailable oos ausverkauft nichtvorratig nichtverfugbar "
    "nichtaufLager rupturedestock rupture epuise indisponible agotado sinexistencias sinstock esgotado indisponivel "
    "semestoque स्टॉकमेंनहीं अनुपलब्ध".lower().split()
)
NOT_OFFERED = frozenset(
    {
        "discontinued",
        "draft",
        "archived",
        "inactive",
        "disabled",
        "hidden",
        "deleted",
        "private",
        "trash",
        "pending",
        "unlisted",
        "unpublished",
        "notvisibleindividually",
        "none",
        "off",
        "retired",
        "obsolete",
        "-1",
    }
)
POLICY, CONTINUE = "variant_inventory_policy", "continue"


@lru_cache(maxsize=10_000)
def _find_role(name: str) -> str | None:
    return ROLE_BY_NAME.get(normalise_heading(name))


def is_about_sales(name: str) -> bool:
    """Return whether a column tells if a product is for sale, which is no fact about it."""
    return _find_role(name) is not None


def find_reason_not_for_sale(row: Mapping[str, Any]) -> str | None:
    """Return why a product is not for sale now; None if it is, or if the row does not say."""
    stated = False
    quantities: list[Any] = []
    for name, value in row.items():
        role = _find_role(name)
        if role is None or value in (None, "", []):
            continue
        if role == "quantity":
            quantities.append(value)
            continue
        state = _normalise_state(value)
        if role == "discontinued":
            if state not in NO:
                return "discontinued"
        elif state in NOT_OFFERED or (role == "status" and state in NO):
            return f"{name}: {str(value)[:40]}"
        elif state in OUT_OF_STOCK:
            return "out of stock"
        stated = stated or role == "availability"
    if stated or _may_be_oversold(row):
        return None
    return "out of stock" if any(_is_used_up(quantity) for quantity in quantities) else None


def _normalise_state(value: Any) -> str:
    if isinstance(value, Mapping):
        if value.get("available") is False:
            return "outofstock"
        value = value.get("status") or value.get("value") or ""
    text = str(value).strip().rsplit("/", 1)[-1].lower()
    return re.sub(r"[\s_.]|(?<=\w)-", "", text).translate(PLAIN_LETTERS)


PLAIN_LETTERS = str.maketrans("äöüàâéèêëíïóôõúãáç", "aouaaeeeeiiooouaac")


def _may_be_oversold(row: Mapping[str, Any]) -> bool:
    return any(normalise_heading(name) == POLICY and value == CONTINUE for name, value in row.items())


def _is_used_up(quantity: Any) -> bool:
    try:
        return not isinstance(quantity, bool | dict | list) and Decimal(str(quantity).strip()) <= 0
    except InvalidOperation:
        return _normalise_state(quantity) in OUT_OF_STOCK


def is_sale_over(period: Any) -> bool:
    """Return whether now is outside Google's `sale_price_effective_date` (start/end)."""
    start, end = (_parse_instant(part) for part in (*str(period or "").split("/"), "")[:2])
    return start is not None and end is not None and not start <= datetime.now(UTC) <= end


def _parse_instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
