"""Two of the same never work at once."""

import threading
from pathlib import Path

import pytest

from dev.locks import locked


def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "new" / "lock", "build"):
            order.append("second")

    waiting = threading.Thread(target=second)
    with locked(tmp_path / "new" / "lock", "build"):
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive()
        order.append("first")
    waiting.join(timeout=30)

    assert order == ["first", "second"]
    assert "wait for another build" in capsys.readouterr().out


def test_who_comes_alone_is_told_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "lock", "build"):
        pass

    assert capsys.readouterr().out == ""
