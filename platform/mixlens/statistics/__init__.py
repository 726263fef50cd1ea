"""Intervals and resampling that any room may use."""
