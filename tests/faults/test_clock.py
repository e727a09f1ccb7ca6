"""The server's clock is wrong, and the database's clock decides."""

import asyncio

import asyncpg
import pytest

from tests.faults.conftest import Trials
from tests.support.load import Kind

pytestmark = pytest.mark.faults

FARTHEST = """
SELECT max(abs(extract(epoch FROM now() - at))) FROM (
    SELECT timestamp FROM credit_transactions
    UNION ALL SELECT updated_at FROM user_credits
    UNION ALL SELECT timestamp FROM user_consents
    UNION ALL SELECT updated_at FROM user_consents
    UNION ALL SELECT cached_at FROM query_cache
    UNION ALL SELECT expires_at - interval '60 minutes' FROM query_cache
) AS instants (at)
"""


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_wrong_clock(trial: Trials, database: str, minutes: int) -> None:
    """All requests are served, and every stored time is right."""
    async with trial(f"server's clock {minutes:+} min", TEST_CLOCK_MINUTES=str(minutes)) as shop:
        with shop.fault():
            await asyncio.sleep(3)
        assert any(one.answered for one in shop.during() if one.kind is Kind.CONSENT)
    connection = await asyncpg.connect(database)
    assert await connection.fetchval(FARTHEST) < 5 * 60
    await connection.close()
