"""Define commands of genkit itself."""
