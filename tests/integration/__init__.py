"""Tests of level integration."""
