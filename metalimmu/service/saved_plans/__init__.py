"""Saved plans: made, written, signed, verified, compared with what is there now, and carried out exactly as they are."""
