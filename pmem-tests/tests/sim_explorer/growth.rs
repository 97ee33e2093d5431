//! Crashes in and after a growth.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::Region;
use daxmap::sim::{Explorer, Faults, History, Mode, Notes, SimRegion};

#[test]
fn a_crash_in_a_growth_leaves_either_length_and_zeros() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let grown = |region: &SimRegion, _: &Notes| {
        region.grow(1001)?;
        region.write(995, &[7; 6])?;
        region.grow(3000)
    };
    let mut faults = Faults::default();
    faults.lazy_growth = true;
    let check = move |region: &SimRegion, _: &History| {
        let len = region.len();
        into.lock().unwrap().insert(len);
        // Whoever grows finds zeros: what a crash cut off is gone for good.
        region.grow(4096).unwrap();
        let mut rest = vec![1; 4096 - len as usize];
        region.read(len, &mut rest).unwrap();
        if rest.iter().any(|&byte| byte != 0) {
            return Err(format!("bytes behind the end at {len}"));
        }
        Ok(())
    };
    let report =
        Explorer::new(Mode::Adr, 998).max_len(4096).depth(1).faults(faults).run(grown, check);
    let _ = report.expect_clean();
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([998, 1001, 3000]));
}

#[test]
fn after_a_growth_has_returned_only_the_new_length_is_left() {
    let report = Explorer::new(Mode::PageCache, 512).max_len(4096).run(
        |region, notes| {
            notes.begin(1024);
            region.grow(1024)?;
            notes.ack(1024);
            region.store_u64(1016, 5)
        },
        |region, history| {
            let len = region.len();
            let least = history.last_acked().unwrap_or(512);
            let most = history.last_begun().unwrap_or(512);
            if (least..=most).contains(&len) { Ok(()) } else { Err(format!("{len} bytes")) }
        },
    );
    let _ = report.expect_clean();
}

#[test]
fn a_drain_makes_a_late_growth_durable() {
    let mut faults = Faults::default();
    faults.lazy_growth = true;
    let report = Explorer::new(Mode::Adr, 512).max_len(4096).faults(faults).run(
        |region, notes| {
            region.grow(1024)?;
            region.drain()?;
            notes.ack(1024);
            region.store_u64(0, 1)
        },
        |region, history| {
            let (len, acked) = (region.len(), history.last_acked().unwrap_or(0));
            if len < acked { Err(format!("{len} bytes of {acked}")) } else { Ok(()) }
        },
    );
    let _ = report.expect_clean();
}

#[test]
fn what_a_crash_cut_off_does_not_come_back_when_recovery_grows() {
    for mode in Mode::ALL {
        cut_off_and_grown(mode);
    }
}

fn cut_off_and_grown(mode: Mode) {
    let seen = Arc::new(AtomicU64::new(0));
    let into = Arc::clone(&seen);
    let mut faults = Faults::default();
    faults.lazy_growth = true;
    let report = Explorer::new(mode, 1024).max_len(4096).faults(faults).run(
        |region, _| region.grow(2048).and_then(|()| region.store_u64(1504, 1)),
        move |region, _| match region.len() {
            1024 => region.grow(4096).map_err(|error| error.to_string()),
            // The recovery before found the short image, grew it, and was crashed.
            4096 => {
                into.fetch_add(1, Ordering::Relaxed);
                let word = region.load_u64(1504).unwrap();
                if word == 0 { Ok(()) } else { Err(format!("{word} came back")) }
            }
            _ => region.load_u64(1504).map(drop).map_err(|error| error.to_string()),
        },
    );
    let _ = report.expect_clean();
    assert!(seen.load(Ordering::Relaxed) > 0, "no recovery was crashed after its growth");
}
