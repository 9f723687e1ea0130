"""Requests under way in an ingress, for each policy: what would wait in vain is refused before its body is read.

Replicas refuse, too. But under a load that an ingress itself cannot take, requests would use up their time before they
reach one, and what an ingress does for a request costs several times what a refusal costs here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from fastapi import Request

from configs.policies import BasePolicy, ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.replicas.backlog import Backlog
from deployments.transports.http.asked import chosen, policy_name, time_limit_s


class Places:
    """One per ingress process."""

    def __init__(self, config: Callable[[], ServeConfig]) -> None:
        """`config`: the configuration with the policies that are served now."""
        self._config = config
        self._backlogs: dict[tuple[str, int], Backlog] = {}

    def of(self, request: Request, fits: Callable[[BasePolicy], bool]) -> AbstractContextManager[None]:
        """Around the answer to a request that a policy which `fits` answers; entering it raises
        PolicyError("overloaded"). Where only the body can say which policy that is, the request is let in."""
        config = self._config()
        try:
            policy = chosen(config.policies, policy_name(request, None), fits)
        except PolicyError:
            return nullcontext()
        seats = max(1, _seats(policy) // config.ingress_replicas)
        if (policy.name, seats) not in self._backlogs:  # a policy may have been loaded since
            self._backlogs[policy.name, seats] = Backlog(seats)
        return self._backlogs[policy.name, seats].place(time_limit_s(request, policy.request_deadline_s))


def _seats(policy: BasePolicy) -> int:
    """Requests that all replicas together work on at the same time."""
    match policy:
        case PolicyConfig():
            each = policy.engine.max_num_seqs
        case ChunkPolicy():
            each = policy.max_batch
        case ProviderPolicy():
            each = policy.concurrency
        case _:
            raise TypeError(f"unknown kind of policy: {policy.name}")
    return each * policy.replicas.max_replicas
