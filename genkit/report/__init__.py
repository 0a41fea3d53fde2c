"""Report runs with pictures, plots and tables."""
