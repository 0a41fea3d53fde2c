"""EDM2 (arXiv 2312.02696): the magnitude-preserving U-Net, and a loss that weighs itself."""
