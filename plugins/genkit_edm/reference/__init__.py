"""Import of networks from the reference implementations of EDM and EDM2."""
