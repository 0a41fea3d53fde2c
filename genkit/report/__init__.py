"""What a person looks at after a run: pictures, plots and tables."""
