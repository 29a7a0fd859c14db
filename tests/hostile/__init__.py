"""Strategies that mean harm: uploaded as a user's by tests, benchmarks and the soak."""
