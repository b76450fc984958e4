"""`metalimmu doctor`: what is wrong around a controller, before a machine finds out."""
