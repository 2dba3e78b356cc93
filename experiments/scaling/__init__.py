"""How the speed of sweeps and of collections grows with their workers, on each engine."""
