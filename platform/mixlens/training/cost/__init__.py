"""What a run costs before it starts: parameters, floating-point operations, memory and hours."""
