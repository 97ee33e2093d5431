//! Crashes in and after a growth.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::Region;
use daxmap_sim::{Explorer, Faults, History, Mode, Notes, SimRegion};

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

const FULL: u64 = 1200;
const SHORT: u64 = 1001;

/// What a region of [`FULL`] bytes shows that has been cut to [`SHORT`] and grown again, or not yet.
fn cut_or_whole(region: &SimRegion) -> Result<bool, String> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    let (kept, rest) = bytes.split_at(SHORT as usize);
    if kept.iter().any(|&byte| byte != 7) {
        return Err("what was kept is lost".to_owned());
    }
    match rest.iter().position(|&byte| byte != 0) {
        None => Ok(true),
        Some(_) if rest.len() as u64 == FULL - SHORT && rest.iter().all(|&byte| byte == 7) => {
            Ok(false)
        }
        Some(at) => Err(format!("an old byte behind the cut, {at} behind it")),
    }
}

/// Cut in the middle of a line of which both sides are on their way, and grown again, in every mode.
#[test]
fn what_was_cut_off_does_not_come_back() {
    for mode in [Mode::Adr, Mode::Eadr, Mode::PageCache, Mode::TornWords] {
        let whole = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&whole);
        let workload = |region: &SimRegion, notes: &Notes| {
            region.write_persist(0, &[7; FULL as usize])?;
            notes.ack(1);
            // On their way as the region is cut: of one line both sides.
            region.write_flush(SHORT - 4, &[7; 9])?;
            region.write(FULL - 9, &[7; 9])?;
            region.shrink(SHORT)?;
            notes.ack(2);
            region.grow(FULL + 300)?;
            notes.ack(3);
            region.drain()
        };
        let check = move |region: &SimRegion, history: &History| {
            let acked = history.last_acked().unwrap_or(0);
            if acked == 0 {
                return Ok(());
            }
            let len = region.len();
            let lengths: &[u64] = match acked {
                1 => &[FULL, SHORT],
                2 => &[SHORT, FULL + 300],
                _ => &[FULL + 300],
            };
            if !lengths.contains(&len) {
                return Err(format!("{len} bytes after {acked}"));
            }
            region.grow(len.max(FULL)).unwrap();
            let cut = cut_or_whole(region)?;
            if cut == (len == FULL) {
                return Err(format!("of {len} bytes the end is cut: {cut}"));
            }
            seen.fetch_add(u64::from(!cut), Ordering::Relaxed);
            Ok(())
        };
        let report = Explorer::new(mode, FULL).max_len(4096).depth(1).run(workload, check);
        let _ = report.expect_clean();
        assert!(
            whole.load(Ordering::Relaxed) > 0,
            "{mode:?}: a crash inside may keep the old length"
        );
    }
}

/// Recovery cuts what the crash left open, and crashes there: no image has an old byte again.
#[test]
fn what_recovery_cuts_off_does_not_come_back() {
    for mode in [Mode::Adr, Mode::PageCache] {
        let workload = |region: &SimRegion, _: &Notes| {
            region.write_flush(500, &[7; 100])?;
            region.drain()?;
            region.write(560, &[8; 30])
        };
        let check = |region: &SimRegion, _: &History| {
            region.shrink(570).unwrap();
            region.grow(600).unwrap();
            let mut bytes = [7; 30];
            region.read(570, &mut bytes).unwrap();
            if bytes == [0; 30] { Ok(()) } else { Err(format!("{bytes:?}")) }
        };
        let _ = Explorer::new(mode, 600).run(workload, check).expect_clean();
    }
}

#[test]
fn a_region_shrinks_to_nothing_and_grows_again() {
    let region = SimRegion::new(Mode::PageCache, 512, 1024);
    region.write_persist(0, &[7; 512]).unwrap();
    region.shrink(0).unwrap();
    assert!(region.is_empty() && region.read(0, &mut [0]).is_err());
    assert_eq!(region.crash(1).len(), 0);
    region.grow(512).unwrap();
    let mut bytes = [7; 512];
    region.crash(2).read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 512]);
    region.close().unwrap();
    assert!(region.shrink(1).is_err() && region.len() == 512);
}
