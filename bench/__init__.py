"""Benchmarks. `make bench` runs them and writes bench/README.md; failed attempts are in bench/LOG.md."""
