"""What starts a verb: schedules now, events later. Decides when; the service does the work."""
