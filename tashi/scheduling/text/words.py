"""A plan in words, one line a step, and as rows of plain data for programs. Only names and numbers of the snapshot are added."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tashi.scheduling.plan import Action, Figures, Grow, Migrate, Place, Plan, Postpone, PowerOn, Shrink, in_words
from tashi.scheduling.snapshot import Snapshot

Row = dict[str, Any]


def plan_in_words(plan: Plan, snapshot: Snapshot) -> list[str]:
    """What the plan does, step by step; then what it gains, and its remarks. One line when there is nothing to do."""
    lines = [_line(row) for row in plan_as_rows(plan, snapshot)] or ["nothing to do"]
    return lines + _gains(plan.before, plan.after, plan.bound) + [f"note: {remark}" for remark in plan.remarks]


def plan_as_rows(plan: Plan, snapshot: Snapshot) -> list[Row]:
    """One row a step: ``action`` (place, wait, move, shrink, grow, power-on, power-off), whom it is about and ``why``.

    ``instance`` and ``host`` are names, and stand beside ``instanceId`` and ``hostId``; a move has ``from``; memory is in MB.
    """
    names = _Names(snapshot)
    return [names.row(action) for action in plan.actions]


class _Names:
    """Who is who, and where each is after the steps so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._hosts = snapshot.hosts
        everybody = [one for group in (*snapshot.placed.values(), snapshot.pending) for one in group]
        self._instances = {one.id: one for one in everybody}
        self._where = {one.id: one.host_id for one in everybody}
        self._often = Counter(one.name for one in self._instances.values())

    def row(self, action: Action) -> Row:
        """One step as plain data."""
        if isinstance(action, Place):
            return {"action": "place", **self._instance(action.instance_id), **self._host(action.host_id), "why": action.why}
        if isinstance(action, Postpone):
            return {"action": "wait", **self._instance(action.instance_id), "why": in_words(action.refusals)}
        if isinstance(action, Migrate):
            source = self._host(self._where.get(action.instance_id))["host"]
            self._where[action.instance_id] = action.host_id
            moved = {**self._instance(action.instance_id), "from": source, **self._host(action.host_id)}
            return {"action": "move", **moved, "why": action.why, "evacuates": action.evacuates}
        if isinstance(action, Shrink | Grow):
            instance = self._instances.get(action.instance_id)
            before = instance.resources.memory if instance else None
            sizes = {"memoryBefore": before, "memory": action.memory}
            return {
                "action": "shrink" if isinstance(action, Shrink) else "grow",
                **self._instance(action.instance_id),
                **sizes,
                "why": action.why,
            }
        return {"action": "power-on" if isinstance(action, PowerOn) else "power-off", **self._host(action.host_id), "why": action.why}

    def _instance(self, instance_id: int) -> Row:
        instance = self._instances.get(instance_id)
        name = f"({instance_id})" if instance is None else instance.name
        if self._often[name] > 1:
            name = f"{name} ({instance_id})"
        return {"instance": name, "instanceId": instance_id}

    def _host(self, host_id: int | None) -> Row:
        host = self._hosts.get(host_id or 0)
        return {"host": host.name if host else f"({host_id})", "hostId": host_id}


def _line(row: Row) -> str:
    what = row.get("instance", row.get("host"))
    match row["action"]:
        case "place":
            what = f"{what} on {row['host']}"
        case "move":
            what = f"{what} {row['from']} -> {row['host']}"
        case "shrink" | "grow":
            what = f"{what} {row['memoryBefore']} -> {row['memory']} MB"
    return f"{row['action']} {what}: {row['why']}" if row["why"] else f"{row['action']} {what}"


def _gains(before: Figures | None, after: Figures | None, bound: int | None) -> list[str]:
    lines = []
    if before and after:
        lines.append(f"hosts in use {before.hosts_in_use} -> {after.hosts_in_use}" + ("" if bound is None else f", lower bound {bound}"))
        change = f" ({(after.imbalance / before.imbalance - 1) * 100:+.0f} %)" if after.imbalance < before.imbalance else ""
        lines.append(f"imbalance {before.imbalance:.3f} -> {after.imbalance:.3f}{change}")
    elif bound is not None:
        lines.append(f"hosts in use: lower bound {bound}")
    return lines
