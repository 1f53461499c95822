"""The gRPC front: services, validation, errors, identity, health, metrics. Owns no tensor."""
