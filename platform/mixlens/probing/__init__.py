"""What of an image can be read from its tokens, and what the decoder does without them."""
