"""The artefact that training hands to everything after it."""
