"""Measurements: `python -m benchmarks` lists them, `python -m benchmarks NAME --help` tells the flags of one."""
