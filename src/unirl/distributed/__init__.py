"""Training on several processes: collectives, Lightning strategies and FSDP2 for backbones."""
