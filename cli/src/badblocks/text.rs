//! Bad memory for people: what, how much of it, who holds it, and what clears it.

use std::io::{self, Write};

use daxmap::probe::{BadIn, BadMemory, MemoryRegion};

use crate::probe::{bytes, clean};

/// Writes one thing.
pub fn write(out: &mut impl Write, bad: &BadMemory) -> io::Result<()> {
    writeln!(out, "{}", clean(&head(bad)))?;
    for range in &bad.ranges {
        writeln!(out, "  [{}, {})  {}", range.start, range.end, bytes(range.end - range.start))?;
    }
    for region in &bad.regions {
        writeln!(out, "  held by: {}", clean(&holder(region)))?;
    }
    for note in &bad.notes {
        writeln!(out, "  note: {}", clean(note))?;
    }
    if let Some(remedy) = &bad.remedy {
        writeln!(out, "  remedy: {}", clean(&remedy.to_string()))?;
    }
    Ok(())
}

fn head(bad: &BadMemory) -> String {
    let kind = match bad.kind {
        BadIn::File => "file",
        BadIn::BlockDevice => "block device",
        BadIn::DaxDevice => "device DAX",
        _ => "region",
    };
    let at = match &bad.mount {
        Some(point) if bad.kind == BadIn::BlockDevice => {
            format!(", mounted on {}", point.display())
        }
        _ => String::new(),
    };
    let total = bad.ranges.iter().map(|range| range.end - range.start).sum();
    let found = match (bad.ranges.len(), bad.is_complete) {
        (0, true) => "no bad range is known".to_owned(),
        (0, false) => "no bad range could be listed; there may be some".to_owned(),
        (n, complete) => format!(
            "{n} bad range{}, {}{}",
            if n == 1 { "" } else { "s" },
            bytes(total),
            if complete { "" } else { ", and perhaps more" }
        ),
    };
    format!("{} ({kind}{at}): {found}", bad.name.display())
}

fn holder(region: &MemoryRegion) -> String {
    let devices: Vec<_> = region
        .devices
        .iter()
        .map(|device| match &device.identity {
            Some(identity) => format!("{} ({identity})", device.name),
            None => device.name.clone(),
        })
        .collect();
    let devices = match devices.as_slice() {
        [] => "no memory device named".to_owned(),
        [one] => one.clone(),
        several => format!("spread over {}", several.join(", ")),
    };
    let scrubs = match region.scrubs {
        None => "has no scrub".to_owned(),
        Some(scrubs) if scrubs.running => format!("scrub running, {} ended", scrubs.completed),
        Some(scrubs) if scrubs.completed == 0 => "never scrubbed since boot".to_owned(),
        Some(scrubs) => format!("scrubbed {} times since boot", scrubs.completed),
    };
    let clears = match region.clears_errors {
        Some(true) => "clears errors",
        Some(false) => "cannot clear errors",
        None => "does not say whether it clears errors",
    };
    format!("{} ({}), {devices}; {scrubs}; {clears}", region.name, region.provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> BadMemory {
        let program = std::env::current_exe().unwrap();
        let mut bad = daxmap::probe::probe(program).unwrap().bad_memory().unwrap();
        bad.name = "/m/f".into();
        bad.mount = Some("/m".into());
        (bad.ranges, bad.is_complete) = (Vec::new(), true);
        bad
    }

    #[test]
    fn the_head_says_how_much_is_known() {
        let mut bad = program();
        let heads = |bad: &mut BadMemory, is_complete| {
            bad.is_complete = is_complete;
            head(bad)
        };
        assert_eq!(heads(&mut bad, true), "/m/f (file): no bad range is known");
        let hidden = "/m/f (file): no bad range could be listed; there may be some";
        assert_eq!(heads(&mut bad, false), hidden);
        bad.ranges = vec![std::ops::Range { start: 0, end: 4096 }];
        assert_eq!(heads(&mut bad, true), "/m/f (file): 1 bad range, 4.0 KiB");
        bad.ranges.push(8192..12288);
        let more = "/m/f (file): 2 bad ranges, 8.0 KiB, and perhaps more";
        assert_eq!(heads(&mut bad, false), more);
        bad.kind = BadIn::BlockDevice;
        bad.ranges.clear();
        let mounted = "/m/f (block device, mounted on /m): no bad range is known";
        assert_eq!(heads(&mut bad, true), mounted);
        bad.kind = BadIn::DaxDevice;
        assert_eq!(head(&bad), "/m/f (device DAX): no bad range is known");
    }

    #[test]
    fn ranges_notes_and_the_fix_have_a_line_each() {
        let mut bad = program();
        bad.ranges = vec![std::ops::Range { start: 4096, end: 8192 }];
        bad.notes = vec!["a\u{1b}note".to_owned()];
        let mut out = Vec::new();
        write(&mut out, &bad).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected =
            "/m/f (file): 1 bad range, 4.0 KiB\n  [4096, 8192)  4.0 KiB\n  note: a\u{fffd}note\n";
        assert_eq!(text, expected);
    }
}
