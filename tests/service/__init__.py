"""A streams service for tests: the protocol's reference server, behind a gate that wants its secret."""

from tests.service.gate import Exchange, Fault, Gate
from tests.service.service import Service, running

__all__ = ["Exchange", "Fault", "Gate", "Service", "running"]
