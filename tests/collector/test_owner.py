"""One state folder, two lakes: what was accepted for one does not go to the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.owner import check_lake
from hubscope.collector.log.wal import Record, SegmentWriter, Signal
from hubscope.errors import ConfigError, status_of


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_state_folder_with_requests_for_another_lake_is_refused(tmp_path: Path, is_sealed: bool) -> None:
    """While something waits in it, sealed or not, another lake is refused with 2, naming both; once it is empty, or the
    old lake is named again, not."""
    state, wal = tmp_path / "state", tmp_path / "state" / "wal"
    state.mkdir()
    check_lake(state, wal, f"{tmp_path}/one")
    log = SegmentWriter(wal)
    log.append([Record(Signal.TRACES, b"", 1)])
    if is_sealed:
        log.close()
    with pytest.raises(ConfigError) as caught:
        check_lake(state, wal, f"{tmp_path}/two")
    assert status_of(caught.value).exit_code == 2
    assert f"{tmp_path}/one" in caught.value.message
    assert f"this one is {tmp_path}/two" in caught.value.message
    check_lake(state, wal, f"{tmp_path}/one")
    if not is_sealed:
        log.close()
    Cursor(state, "lake").advance(1)
    check_lake(state, wal, f"{tmp_path}/two")
    check_lake(state, wal, f"{tmp_path}/two")


def test_a_state_folder_in_its_lake_moves_with_it(tmp_path: Path) -> None:
    """Where it stands by default nothing is noted, so that a lake that was moved is the same one."""
    state = tmp_path / "lake" / ".state"
    check_lake(state, state / "wal", str(tmp_path / "lake"))
    assert not state.exists()
