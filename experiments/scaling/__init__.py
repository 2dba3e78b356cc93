"""How a sweep's speed grows with its workers, on each engine."""
