"""The parts of `scripts/bench attempts`: situations, the oracle, model folders, runs, the report."""
