"""Questions about photographs, from their annotations."""
