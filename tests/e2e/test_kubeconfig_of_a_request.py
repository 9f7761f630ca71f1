"""A kubeconfig in the request is the one that is used, at every step."""

from pathlib import Path

import pytest

from tests.e2e.identity import second_identity
from tests.e2e.system import MANY_QUESTIONS, PATIENCE_SECONDS, System, kubeconfig_of_nobody

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


def test_every_step_uses_the_kubeconfig_of_the_request(system: System, tmp_path: Path) -> None:
    # The service's own kubeconfig leads nowhere: whatever works, works by the request's.
    own = tmp_path / "own.kubeconfig"
    own.write_text(kubeconfig_of_nobody(system.port_of_nobody))
    with (
        second_identity(system.admin) as kubeconfig,
        system.second_service(tmp_path, BUDEVAL_KUBECONFIG=str(own)) as service,
    ):
        cancelled = service.evaluation(kubeconfig=kubeconfig, questions=MANY_QUESTIONS).start()
        cancelled.wait_answers()
        cancelled.cancel()
        cancelled.story("TERMINATED")
        assert cancelled.objects("Job") == []
        completed = service.evaluation(kubeconfig=kubeconfig).start()
        (result,) = completed.story("COMPLETED").results.values()
        assert result.status == "success"
