"""Measures components on this machine: what they cost, and what one gets for it."""
