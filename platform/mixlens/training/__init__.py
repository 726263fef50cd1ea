"""Fine-tuning with DeepSpeed: one loop, run under Ray Train, under torchrun, or alone."""
