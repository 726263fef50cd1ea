"""Sources: index -> Example, one row contract for generated scenes and photographs."""
