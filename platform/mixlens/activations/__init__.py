"""Look into the tokens of a vision LLM: capture hidden states, reduce them, pool the results."""
