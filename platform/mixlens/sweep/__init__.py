"""A whole sweep: plan it, check it, run it on Ray, show it, report it."""
