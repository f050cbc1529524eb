"""Training of text-image retrieval: losses and recall."""
