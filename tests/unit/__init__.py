"""Tests of level unit."""
