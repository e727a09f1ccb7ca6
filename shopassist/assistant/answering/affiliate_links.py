"""Add the affiliate tag to links of supported shops."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

TAG_PARAMETERS = {"amazon": "tag", "flipkart": "affid"}
"""The query parameter for the tag of each shop."""

SHOP_BY_HOST = {
    "amazon.in": "amazon",
    "www.amazon.in": "amazon",
    "amazon.com": "amazon",
    "www.amazon.com": "amazon",
    "flipkart.com": "flipkart",
    "www.flipkart.com": "flipkart",
}
"""Exact host names: a look-alike such as `amazon.in.example` must never get the tag."""


@dataclass(frozen=True, slots=True)
class AffiliateLinks:
    """Adds the affiliate tag to links. `program`: the shop that issued the tag (`amazon`, `flipkart`), or `all`."""

    tag: str | None
    program: str = "amazon"

    def add_tag(self, link: str) -> str:
        """Return a link with the tag if it leads to a shop of the programme, else unchanged."""
        parameter = self._find_parameter(link)
        if not self.tag or parameter is None:
            return link
        parts = urlsplit(link)
        kept = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0].lower() != parameter]
        query = "&".join([*kept, f"{parameter}={quote(self.tag, safe='')}"])
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))

    def _find_parameter(self, link: str) -> str | None:
        try:
            parts = urlsplit(link)
        except ValueError:
            return None
        # Compare the whole authority, so that credentials, ports and backslashes are never taken for a shop.
        known = parts.scheme == "https" and parts.netloc.isascii()
        shop = SHOP_BY_HOST.get(parts.netloc.lower()) if known else None
        wanted = self.program.strip().lower()
        return TAG_PARAMETERS[shop] if shop is not None and wanted in {shop, "all"} else None
