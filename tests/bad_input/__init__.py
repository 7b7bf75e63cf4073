"""Mistakes that users make: a table of them, and random ones."""
