"""Batches for the frameworks, a module for each."""
