//! Nothing to call: the benchmarks stand in `benches/`, in a package of their own so that no other build needs them.
