"""Traces of requests, sent by OTLP where a collector is named."""
