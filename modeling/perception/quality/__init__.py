"""A small network for technical quality and blur, learned from ranked degradations."""
