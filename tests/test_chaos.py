"""A small storm; ``make chaos`` raises the large one."""

from __future__ import annotations

import pytest
from chaos import KINDS, rage


def test_runs_killed_at_random_instants_end_as_if_nothing_had_happened(tmp_path):
    check(rage(tmp_path, 3, seed=1, kinds=KINDS[:1]))


@pytest.mark.slow
def test_runs_of_two_processes_on_shards_and_with_a_cache_too(tmp_path):
    check(rage(tmp_path, 3 * len(KINDS), seed=2))


def check(table):
    for row in table.values():
        assert row["faults"] == []
        assert row["resumed"] == row["kills"] >= 3
        assert row["identical"] == row["runs"] > 0
