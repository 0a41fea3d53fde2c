"""Public parts that the core and several plugins share: what one writes and another reads."""
