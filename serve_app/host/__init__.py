"""The machine under the service: environment, Valkey, HAProxy, the loopback, logs."""
