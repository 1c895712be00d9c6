//! Stands in for `base2histogram` 0.2.3, with which openraft counts the sizes of its batches.
//!
//! Nobody reads these figures here (openraft's feature `runtime-stats` is off), and the original computes and keeps, at the
//! first use of any histogram, the tables of all sixteen widths that one could have: 26 MiB, resident for ever, more than
//! everything else in an agent together. This one keeps nothing. Remove it when the original makes only the table that is
//! used.

use std::fmt;
use std::marker::PhantomData;

/// Takes samples and keeps none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { of: PhantomData }
    }

    /// Takes a sample.
    pub fn record(&mut self, _value: u64) {}

    /// Takes a sample many times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// All zero.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What can be asked of a histogram.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of samples.
    pub samples: u64,
    /// Percentile 0.1.
    pub p0_1: u64,
    /// Percentile 1.
    pub p1: u64,
    /// Percentile 5.
    pub p5: u64,
    /// Percentile 10.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// Percentile 90.
    pub p90: u64,
    /// Percentile 99.
    pub p99: u64,
    /// Percentile 99.9.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not counted]")
    }
}

/// Histograms side by side.
#[derive(Debug, Default, Clone)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// With one more histogram.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not counted]")
    }
}
