"""Checks that alm's guarantees hold on this machine."""
