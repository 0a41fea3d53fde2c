"""Reports of runs: pictures, plots and tables."""
