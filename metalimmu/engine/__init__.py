"""Durable execution. Nothing else imports dbos."""
