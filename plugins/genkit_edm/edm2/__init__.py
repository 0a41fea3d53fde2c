"""EDM2 (arXiv 2312.02696): magnitude-preserving U-Net and loss with learned uncertainty."""
