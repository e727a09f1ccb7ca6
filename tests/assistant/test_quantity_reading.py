"""Parsing of prices and limits on attributes."""

from decimal import Decimal

import pytest

from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex

PRICES = [
    ("phone under ₹12,000", None, 12000, "INR"),
    ("phone under Rs. 50,000", None, 50000, "INR"),
    ("phone under Rs.50000/-", None, 50000, "INR"),
    ("phone below INR 20000", None, 20000, "INR"),
    ("phone under 15000 rupees", None, 15000, "INR"),
    ("phone under 20k", None, 20000, "INR"),
    ("phone under Rs 2k", None, 2000, "INR"),
    ("phone under 1.5 lakh", None, 150000, "INR"),
    ("phone under ₹1.5L", None, 150000, "INR"),
    ("phone upto 2 lakhs", None, 200000, "INR"),
    ("phone under 1,49,999", None, 149999, "INR"),
    ("phone under twenty thousand", None, 20000, "INR"),
    ("phone above 20000", 20000, None, "INR"),
    ("phone over ₹20,000", 20000, None, "INR"),
    ("phone between 40k and 60k", 40000, 60000, "INR"),
    ("phone from 10 to 20k", 10000, 20000, "INR"),
    ("phone 10000-15000", 10000, 15000, "INR"),
    ("phone 15k to 20k", 15000, 20000, "INR"),
    ("phone 200 to 500 dollars", 200, 500, "USD"),
    ("phone between $15 and $30", 15, 30, "USD"),
    ("phone $15-$30", 15, 30, "USD"),
    ("phone, maximum price $390.", None, 390, "USD"),
    ("phone. Maximum price: $300.", None, 300, "USD"),
    ("phone with maximum price of $200", None, 200, "USD"),
    ("phone that costs less than $10", None, 10, "USD"),
    ("phone that does not cost more than $15", None, 15, "USD"),
    ("phone, should not exceed 20000", None, 20000, "INR"),
    ("phone for less than €200", None, 200, "EUR"),
    ("phone under 100 pounds", None, 100, "GBP"),
    ("phone around 15000", 13500, 16500, "INR"),
    ("phone for 20000", None, 20000, "INR"),
    ("phone, budget is 20000", None, 20000, "INR"),
    ("phone with good camera under 20000", None, 20000, "INR"),
    ("phone with good battery under 20000", None, 20000, "INR"),
    ("phone with amoled display under 25k", None, 25000, "INR"),
    ("phone under 500", None, 500, "INR"),
    ("₹500 or less phone", None, 500, "INR"),
    ("phone for under $350 and over 4 star rating", None, 350, "USD"),
]


@pytest.mark.parametrize(("question", "low", "high", "currency"), PRICES)
def test_prices_are_read(
    question: str, low: int | None, high: int | None, currency: str, names: VocabularyIndex
) -> None:
    """Every way of writing a limit gives the same numbers."""
    criteria = parse_question(question, names).criteria
    assert (criteria.price_min, criteria.price_max, criteria.currency) == (low, high, currency)


@pytest.mark.parametrize(
    "question",
    [
        "iPhone 11", "Note 10 Plus", "Apple Watch Series 5 44mm", "Galaxy S10", "phone in 2024", "rtx 3050 laptop",
        "brother tn-2110 toner", "Samsung Galaxy Note 10 Plus with over 5000 reviews", "iPhone XS Max 64GB", "4k tv",
        "5g phone", "laptop under 15 inch", "3-in-1 charger", "4-port usb hub", "phone with 5000mAh battery",
        "what about the 16", "1080p monitor", "Find me 3.5mm charging cable",
    ],
)  # fmt: skip
def test_model_numbers_are_no_prices(question: str, names: VocabularyIndex) -> None:
    """A number of a model, a year or another unit is not a price."""
    criteria = parse_question(question, names).criteria
    assert criteria.price_min is None
    assert criteria.price_max is None


BOUNDS = [
    ("phone with 8GB RAM", ["8 <= ram_gb"]),
    ("64GB 3GB RAM phone", ["64 <= storage_gb", "3 <= ram_gb"]),
    ("phone 8GB RAM and 128GB storage", ["8 <= ram_gb", "128 <= storage_gb"]),
    ("256 gb phone", ["256 <= storage_gb"]),
    ("12 gb phone", ["12 <= ram_gb"]),
    ("phone 8/128gb", ["8 <= ram_gb", "128 <= storage_gb"]),
    ("phone 8GB+256GB", ["8 <= ram_gb", "256 <= storage_gb"]),
    ("mobile 8/256", ["8 <= ram_gb", "256 <= storage_gb"]),
    ("laptop 16gb ram 1tb ssd", ["16 <= ram_gb", "1000 <= storage_gb"]),
    ("laptop with 512GB SSD", ["512 <= storage_gb"]),
    ("16gb pen drive", ["16 <= storage_gb"]),
    ("phone with more than 8GB RAM", ["8 < ram_gb"]),
    ("phone with 6.7 inch screen", ["6.55 <= screen_inches <= 6.85"]),
    ("6 inch phone", ["5.85 <= screen_inches <= 6.65"]),
    ("15 inch laptop", ["14.85 <= screen_inches <= 15.65"]),
    ('55" tv', ["54.5 <= screen_inches <= 55.5"]),
    ("tv 55 inch", ["54.5 <= screen_inches <= 55.5"]),
    ("laptop under 15 inch", ["screen_inches < 15"]),
    ("tv bigger than 43 inches", ["43 < screen_inches"]),
    ("tv between 32 and 43 inches", ["32 <= screen_inches <= 43"]),
    ("phone with at least 6000 mAh", ["6000 <= battery_mah"]),
    ("phone with battery above 5000", ["5000 < battery_mah"]),
    ("20000mAh power bank", ["20000 <= capacity_mah"]),
    ("120Hz phone with 50MP camera", ["120 <= refresh_rate_hz", "50 <= main_camera_mp"]),
    ("phone with 32MP selfie camera", ["32 <= front_camera_mp"]),
    ("phone with 33W charging", ["33 <= charging_watts"]),
    ("phone with fast charging", ["18 <= charging_watts"]),
    ("20w speaker", ["20 <= output_watts"]),
    ("laptop lighter than 1.5 kg", ["weight_g < 1500"]),
    ("1.5 kg laptop", ["weight_g <= 1500"]),
    ("laptop under 1.5 kg", ["weight_g < 1500"]),
    ("phone rated above 4 stars with 150+ reviews", ["4 < rating", "150 <= rating_count"]),
    ("phone 4.5+ stars", ["4.5 <= rating"]),
    ("phone rated 4.4 or higher", ["4.4 <= rating"]),
    ("phone rated 4.7 stars or higher", ["4.7 <= rating"]),
    ("phone with at least 4.4 star ratings", ["4.4 <= rating"]),
    ("phone with ratings between 4.0 and 4.2 stars", ["4 <= rating <= 4.2"]),
    ("phone rated minimum of 4.3 stars by 1000 plus buyers", ["4.3 <= rating", "1000 <= rating_count"]),
    ("phone, number of reviews should be greater than 400", ["400 < rating_count"]),
    ("phone with good reviews (100+)", ["100 <= rating_count"]),
    ("phone with between 1,000 and 4,000 reviews", ["1000 <= rating_count <= 4000"]),
    ("phone (4.5+ star rating)", ["4.5 <= rating"]),
    ("phone with over 1,000 reviews and at least 4-star ratings", ["1000 < rating_count", "4 <= rating"]),
    ("Samsung Galaxy Note 10 Plus with over 5000 reviews", ["5000 < rating_count"]),
]


@pytest.mark.parametrize(("question", "expected"), BOUNDS)
def test_attribute_limits_are_read(question: str, expected: list[str], names: VocabularyIndex) -> None:
    """A number becomes a limit on the attribute that it describes in the kind of product."""
    bounds = parse_question(question, names).criteria.bounds
    assert sorted(_shown(b.name, b.minimum, b.maximum, b.exclusive) for b in bounds) == sorted(expected)


def _shown(name: str, minimum: Decimal | None, maximum: Decimal | None, exclusive: bool) -> str:
    low, high = (float(limit) if limit is not None else None for limit in (minimum, maximum))
    sign = "<" if exclusive else "<="
    return (f"{low:g} {sign} " if low is not None else "") + name + (f" {sign} {high:g}" if high is not None else "")
