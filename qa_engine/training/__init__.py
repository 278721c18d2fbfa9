"""Training of the network: data, ladder of degradations, fit, calibration, evaluation (`mediqa train`)."""
