"""Affiliate links: the tag goes to the shops of the programme and nowhere else."""

import pytest

from shopassist.assistant.assistant import add_affiliate_tag


@pytest.mark.parametrize(
    ("link", "marked"),
    [
        ("https://www.amazon.in/dp/B0X", "https://www.amazon.in/dp/B0X?tag=shop-21"),
        ("https://amazon.in/dp/B0X", "https://amazon.in/dp/B0X?tag=shop-21"),
        ("https://amazon.com/dp/B0X", "https://amazon.com/dp/B0X?tag=shop-21"),
        ("https://WWW.Amazon.COM/dp/B0X", "https://WWW.Amazon.COM/dp/B0X?tag=shop-21"),
        ("https://www.amazon.in/s?k=a+b&tag=thief-20&x=%2F", "https://www.amazon.in/s?k=a+b&x=%2F&tag=shop-21"),
        ("https://www.amazon.in/s?TAG=thief&k=1#top", "https://www.amazon.in/s?k=1&tag=shop-21#top"),
    ],
)
def test_amazon_links_get_the_tag(link: str, marked: str) -> None:
    """A link to the shop gets the tag instead of another one and keeps the rest of its query."""
    assert add_affiliate_tag(link, "shop-21") == marked


@pytest.mark.parametrize(
    "link",
    [
        "http://www.amazon.in/dp/B0X",
        "https://evil-amazon.in/dp/B0X",
        "https://amazon.in.evil.com/dp/B0X",
        "https://www.amazon.in@evil.com/dp/B0X",
        "https://user:pw@www.amazon.in/dp/B0X",
        "https://www.amazon.in:8443/dp/B0X",
        "https://evil.com/?u=https://www.amazon.in/",
        "https://evil.com\\@www.amazon.in/",
        "https://аmazon.in/dp/B0X",  # noqa: RUF001 - the look-alike letter is the point
        "https://xn--mazon-3ve.in/dp/B0X",
        "https://ａmazon.in/dp/B0X",  # noqa: RUF001 - full width
        "https://flip\u212aart.com/p/1",
        "https://www.amazon.in:443/dp/B0X",
        "https://amazon.in%2eevil.com/dp/B0X",
        "https://amazon.in./dp/B0X",
        "https://smile.amazon.in/dp/B0X",
        "javascript:alert(1)//www.amazon.in",
        "//www.amazon.in/dp/B0X",
        "https://[bad/",
        "",
        "https://www.flipkart.com/p/1",
    ],
)
def test_other_links_are_unchanged(link: str) -> None:
    """Look-alikes, other schemes and shops of other programmes never get the tag."""
    assert add_affiliate_tag(link, "shop-21") == link


def test_program_chooses_the_shop() -> None:
    """The tag of Flipkart is added only to its links; `all` means both shops."""
    flipkart, amazon = "https://www.flipkart.com/p/1?pid=2&affid=x", "https://www.amazon.in/dp/1"
    assert add_affiliate_tag(flipkart, "me", "flipkart") == "https://www.flipkart.com/p/1?pid=2&affid=me"
    assert add_affiliate_tag(amazon, "me", "flipkart") == amazon
    assert add_affiliate_tag(amazon, "me", "ALL") == f"{amazon}?tag=me"
    assert add_affiliate_tag(amazon, "me", "unknown") == amazon


def test_tag_is_escaped() -> None:
    """A tag cannot add parameters; without a tag links are unchanged."""
    assert add_affiliate_tag("https://amazon.in/x", "a&b=c") == "https://amazon.in/x?tag=a%26b%3Dc"
    assert add_affiliate_tag("https://amazon.in/x", None) == "https://amazon.in/x"
