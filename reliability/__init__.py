"""Long tests of lonc's guarantees: ``make soak``."""
