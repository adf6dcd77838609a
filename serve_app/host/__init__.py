"""What the service needs of its machine: environment, Valkey, HAProxy, the loopback, logs."""
