//! Holds no code: the benchmarks are in `benches/`, in their own package so that no other build depends on them.
