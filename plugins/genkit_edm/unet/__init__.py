"""The U-Nets of EDM (arXiv 2206.00364, table 7): DDPM++, NCSN++ and ADM."""
