"""What may be wrong with a deployment, and how it is put right."""
