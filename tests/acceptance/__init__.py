"""Tests of level acceptance."""
