"""What `make check` refuses beyond the tools that it runs."""

from pathlib import Path

import pytest

from dev.check import UNWANTED_DISTRIBUTION, refuse_unwanted_distribution
from dev.errors import StackError


def test_the_old_workflow_package_is_refused_beside_dapr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unwanted_distribution()
    information = tmp_path / "dapr_ext_workflow-1.18.3.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {UNWANTED_DISTRIBUTION}\nVersion: 1.18.3\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(StackError, match=f"pip uninstall {UNWANTED_DISTRIBUTION}"):
        refuse_unwanted_distribution()
