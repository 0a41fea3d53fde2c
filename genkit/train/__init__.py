"""One trainer for every network: it knows neither the coupling nor the loss."""
