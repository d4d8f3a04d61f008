"""Measuring: metrics, and their computation over a data set."""
