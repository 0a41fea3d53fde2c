"""Import of networks that the reference implementations of EDM and EDM2 wrote."""
