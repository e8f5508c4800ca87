"""Jobs in the phases that these tests begin with."""

from tests.gateway.job_fixtures import job_id, trained, worker

__all__ = ["job_id", "trained", "worker"]
