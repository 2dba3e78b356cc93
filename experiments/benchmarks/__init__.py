"""Speed and memory beside other tools: ``python -m experiments.benchmarks.run`` writes docs/benchmarks.md."""
