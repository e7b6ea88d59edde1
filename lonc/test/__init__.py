"""The tests: one module for each module of lonc, and the scenarios."""
