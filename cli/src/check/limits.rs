//! Limits for the time of a commit: what they are about, and how they are written.

use crate::bench::tally::{P99_MIN, P999_MIN, Tally};

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    P99,
    P999,
    Max,
}

impl Statistic {
    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::P99 => "commit_p99",
            Self::P999 => "commit_p999",
            Self::Max => "commit_max",
        }
    }

    /// The name for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
        }
    }

    /// Commits without which it is not known.
    pub const fn least(self) -> u64 {
        match self {
            Self::P99 => P99_MIN,
            Self::P999 => P999_MIN,
            Self::Max => 1,
        }
    }

    /// Its value in nanoseconds; `None` out of too few commits.
    pub fn of(self, tally: &Tally) -> Option<u64> {
        let part = match self {
            Self::P99 => 0.99,
            Self::P999 => 0.999,
            Self::Max => 1.0,
        };
        (tally.updates >= self.least()).then(|| tally.quantile(part))
    }
}

/// A limit: the statistic is this many nanoseconds at most.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub statistic: Statistic,
    pub ns: u64,
}

/// Reads `500us`, `5ms` or `1.5s` as nanoseconds, from 1 ns to an hour.
pub fn time(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    const RANGE: std::ops::RangeInclusive<f64> = 1.0..=3600e9;
    let unit = UNITS.into_iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, ns)));
    let (number, ns) = unit.ok_or("a number and ns, us, ms or s are needed, as in 5ms")?;
    let number: f64 = number.trim().parse().map_err(|_| "not a number and a unit".to_owned())?;
    let ns = number * ns;
    if RANGE.contains(&ns) {
        #[allow(clippy::cast_sign_loss)] // positive
        Ok(ns.round() as u64)
    } else {
        Err("not between 1ns and 3600s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::Batch;

    #[test]
    fn times_have_a_unit_and_a_range() {
        for (text, ns) in [
            ("1ns", 1),
            ("500us", 500_000),
            ("5ms", 5_000_000),
            ("1.5s", 1_500_000_000),
            ("3600s", 3_600_000_000_000),
        ] {
            assert_eq!(time(text), Ok(ns), "{text}");
        }
        for text in ["", "5", "ms", "5m", "-5ms", "0ms", "0.4ns", "3601s", "NaNs", "infs", "5 h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    fn tally(times_ns: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for times in times_ns.chunks(97) {
            tally.add(&Batch { times_ns: times.to_vec(), busy_ns: 1, ..Batch::default() });
        }
        tally
    }

    /// By definition: the smallest time that so many in `of` do not exceed.
    fn by_counting(times_ns: &[u64], part: usize, of: usize) -> u64 {
        let reaches = |&&ns: &&u64| {
            times_ns.iter().filter(|&&t| t <= ns).count() * of >= part * times_ns.len()
        };
        *times_ns.iter().filter(reaches).min().expect("the largest does")
    }

    #[test]
    fn percentiles_are_those_of_counting_to_a_part_in_a_thousand() {
        // A sequence of its own for every length: a Lehmer generator's, over six powers of ten.
        for count in [100_usize, 101, 999, 1000, 1001, 2500] {
            let mut state = count as u64;
            let times: Vec<u64> = (0..count)
                .map(|_| {
                    state = state * 48271 % 2_147_483_647;
                    1000 + (state % 1_000_000) * (1 + state % 7) * (1 + state % 1009)
                })
                .collect();
            let tally = tally(&times);
            let close = |seen: u64, exact: u64| seen >= exact && seen <= exact + exact / 1000 + 1;
            for (part, of, quantile) in [(50, 100, 0.5), (95, 100, 0.95), (99, 100, 0.99)] {
                let (seen, exact) = (tally.quantile(quantile), by_counting(&times, part, of));
                assert!(close(seen, exact), "{count}, {quantile}: {seen}, not {exact}");
            }
            let p99 = Statistic::P99.of(&tally).expect("enough");
            assert!(close(p99, by_counting(&times, 99, 100)));
            match Statistic::P999.of(&tally) {
                Some(p999) => assert!(close(p999, by_counting(&times, 999, 1000))),
                None => assert!(count < 1000),
            }
            let max = Statistic::Max.of(&tally).expect("there are some");
            assert!(close(max, *times.iter().max().expect("some")));
        }
        assert_eq!(Statistic::P99.of(&tally(&[1; 99])), None);
        assert_eq!(Statistic::P999.of(&tally(&[1; 999])), None);
        assert_eq!(Statistic::Max.of(&Tally::default()), None);
    }
}
