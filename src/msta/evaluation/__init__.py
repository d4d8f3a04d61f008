"""Measuring: metrics and how they are computed over a data set."""
