"""Studies of many trainings: the protocols, comparisons, ablations, tuning, and their reports."""
