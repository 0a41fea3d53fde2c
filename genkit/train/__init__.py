"""Trainer of every network, independent of coupler and objective."""
