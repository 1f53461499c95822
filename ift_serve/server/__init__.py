"""The gRPC side: services, validation, errors, identity, health, metrics. Owns no tensor."""
