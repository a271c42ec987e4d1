"""Proof that no secret leaks."""
