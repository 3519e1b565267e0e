"""segkit beside its peers: how fast (`make bench`), and in `benchmarks.accuracy` how well."""
