"""Deployments and cron."""
