"""A finished dataset."""
