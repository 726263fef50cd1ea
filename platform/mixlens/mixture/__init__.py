"""The mixture: ratios -> an exact, resumable order of examples, and the streams over it."""
