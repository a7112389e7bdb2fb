"""Tests at three levels: unit, integration, acceptance."""
