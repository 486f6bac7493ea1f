"""Tests of rankplan."""
