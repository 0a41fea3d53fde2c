"""Guidance by a second denoiser: without labels, or weaker."""
