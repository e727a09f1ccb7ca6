"""What administrators do to a rollout."""

from shopassist.db.ports import UnitOfWork
from shopassist.db.rollout.control import Rollout
from shopassist.errors import NoRolloutError
from shopassist.models import AdminAct
from shopassist.models.admin_audit import READ_ROLLOUT, TURN_ROLLOUT
from shopassist.models.rollout import RolloutStatus


class RolloutService:
    """Shows and turns the dial. Each method raises `NoRolloutError` where the server does not run a rollout."""

    def __init__(self, rollout: Rollout | None, unit_of_work: UnitOfWork) -> None:
        """Acts go to the audit by `unit_of_work`: to memory, when PostgreSQL is away, and from there later."""
        self._rollout = rollout
        self._unit_of_work = unit_of_work

    async def status(self, act: AdminAct) -> RolloutStatus:
        """Where it stands. `act`, of whoever looks, goes to the audit first where people are named."""
        status = await self._running().status()
        if status.unmirrored:
            await self._record(act, READ_ROLLOUT, None)
        return status

    async def set(self, percent: float, act: AdminAct) -> RolloutStatus:
        """Turn the dial."""
        rollout = self._running()
        rollout.set(percent)
        await self._record(act, TURN_ROLLOUT, f"{percent:g} %")
        return await rollout.status()

    async def back(self, act: AdminAct) -> RolloutStatus:
        """Send everybody back to memory at once; only then is it written down, which may take a while."""
        rollout = self._running()
        await rollout.back()
        await self._record(act, TURN_ROLLOUT, "back")
        return await rollout.status()

    def _running(self) -> Rollout:
        if self._rollout is None:
            raise NoRolloutError
        return self._rollout

    async def _record(self, act: AdminAct, what: str, target: str | None) -> None:
        act.act, act.target = what, target
        await self._unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)
