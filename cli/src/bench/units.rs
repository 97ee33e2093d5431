//! Figures for people: three significant digits and a unit.

/// A time.
pub fn time(ns: u64) -> String {
    scaled(ns as f64, &[("ns", 1e3), ("us", 1e3), ("ms", 1e3), ("s", f64::INFINITY)])
}

/// A number of bytes.
pub fn bytes(count: f64) -> String {
    scaled(count, &[("B", 1024.0), ("KiB", 1024.0), ("MiB", 1024.0), ("GiB", f64::INFINITY)])
}

/// A rate.
pub fn rate(per_second: f64) -> String {
    scaled(per_second, &[("", 1e3), ("k", 1e3), ("M", 1e3), ("G", f64::INFINITY)])
}

/// A count per update: whole where it is whole.
pub fn count(count: f64) -> String {
    if count == 0.0 {
        "0".to_owned()
    } else if count < 0.005 {
        "<0.01".to_owned()
    } else {
        digits(count, true)
    }
}

/// How many times: two significant digits at least.
pub fn ratio(ratio: f64) -> String {
    digits(ratio, false)
}

fn scaled(mut value: f64, units: &[(&str, f64)]) -> String {
    for (unit, step) in units {
        // 999.6 would be printed as 1000 of this unit.
        if value < step * 0.9995 {
            let whole = *unit == "ns" || *unit == "B";
            let space = if unit.len() > 1 || *unit == "B" || *unit == "s" { " " } else { "" };
            return format!("{}{space}{unit}", digits(value, whole));
        }
        value /= step;
    }
    unreachable!("the last unit has no end")
}

/// Three significant digits; none after the point if `whole` and it makes no difference.
fn digits(value: f64, whole: bool) -> String {
    if value >= 99.95 || value == 0.0 || (whole && (value - value.round()).abs() < 0.005) {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(0), "0 ns");
        assert_eq!(time(141), "141 ns");
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1000), "1.00 us");
        assert_eq!(time(74_321), "74.3 us");
        assert_eq!(time(999_700), "1.00 ms");
        assert_eq!(time(12_000_000_000), "12.0 s");
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(4096.0), "4.00 KiB");
        assert_eq!(bytes(1_048_576.0), "1.00 MiB");
        assert_eq!(rate(13_500.0), "13.5k");
        assert_eq!(rate(7_100_000.0), "7.10M");
        assert_eq!(rate(12.0), "12.0");
        assert_eq!(rate(13.0), "13.0");
        assert_eq!(time(999_500), "1.00 ms");
        assert_eq!(time(5), "5 ns");
        assert_eq!(bytes(8.0), "8 B");
        assert_eq!(bytes(1023.6), "1.00 KiB");
        assert_eq!(count(0.005), "0.01");
        assert_eq!(count(0.0), "0");
        assert_eq!(count(2.0), "2");
        assert_eq!(count(2.5), "2.50");
        assert_eq!(count(1024.0), "1024");
        assert_eq!(count(0.001), "<0.01");
        assert_eq!(ratio(490.4), "490");
        assert_eq!(ratio(1.0), "1.00");
    }
}
