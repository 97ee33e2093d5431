//! Headers and roots of which a copy is damaged, or is an older one again.

use super::*;

/// Where a segment begins.
fn segment(number: u64) -> u64 {
    layout::SEGMENTS + number * SEGMENT
}

/// A closed log has its root twice, durably: damage of either slot costs nothing, after a power loss
/// too.
#[test]
fn either_slot_of_a_closed_root_will_do() {
    use crate::format::header::HEADER_AREA;
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=9 {
        log.append(&payload(lsn)).unwrap();
    }
    log.release_up_to(Lsn::new(4)).unwrap();
    log.close().unwrap();
    for (seed, slot) in (0..40).flat_map(|seed| [(seed, 0), (seed, 4096)]) {
        let image = region.crash(seed);
        let mut byte = [0];
        image.read(HEADER_AREA + slot + 30, &mut byte).unwrap();
        image.write(HEADER_AREA + slot + 30, &[byte[0] ^ 1]).unwrap();
        let log = options().open_region(image).unwrap();
        assert!(log.recovery().was_closed, "seed {seed}, slot {slot}");
        assert_eq!((log.released(), all(&log)), (Lsn::new(4), expected(5..10)));
    }
}

/// A write that a medium has lost: any page of the headers is what it was when the log was made, or
/// before the last record.
#[test]
fn an_older_page_of_a_header_loses_no_record() {
    let region = region(4);
    drop(options().format(region.clone()).unwrap());
    let bytes = |region: &SimRegion| {
        let mut bytes = vec![0; region.len() as usize];
        region.read(0, &mut bytes).unwrap();
        bytes
    };
    let mut olds = vec![bytes(&region)];
    let log = options().open_region(region.clone()).unwrap();
    for lsn in 1..=5 {
        log.append(&vec![lsn; 1500]).unwrap();
        olds.push(bytes(&region));
    }
    log.close().unwrap();
    let whole = bytes(&region);
    let mut replaced = 0;
    for old in &olds {
        for page in (0..2).flat_map(|copy| (0..4).map(move |number| segment(number) + copy * 4096))
        {
            let page = page as usize..page as usize + 4096;
            replaced += u32::from(old[page.clone()] != whole[page.clone()]);
            let mut bytes = whole.clone();
            bytes[page.clone()].copy_from_slice(&old[page.clone()]);
            let region = SimRegion::new(Mode::Adr, bytes.len() as u64, bytes.len() as u64);
            region.write(0, &bytes).unwrap();
            let log = options().open_region(region).unwrap();
            let found: Vec<u64> =
                log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap().0.get()).collect();
            assert_eq!(found, [1, 2, 3, 4, 5], "{page:?}");
            log.abandon();
        }
    }
    assert!(replaced > 10, "{replaced}");
}

/// One slot of the root is damaged, or is an older one again: the other one is not overwritten before
/// this one is whole, whenever an opening is cut.
#[test]
fn an_opening_never_writes_over_the_only_root() {
    use crate::format::header::HEADER_AREA;
    use crate::sim::Explorer;
    const LEN: u64 = layout::SEGMENTS + 3 * SEGMENT;
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    let slots = |region: &SimRegion| {
        let mut slots = [[0; 4096]; 2];
        for (at, slot) in [0, 4096].into_iter().zip(&mut slots) {
            region.read(HEADER_AREA + at, slot).unwrap();
        }
        slots
    };
    let older = slots(&region);
    log.append(b"one").unwrap();
    log.close().unwrap();
    for slot in [0, 1] {
        let mut invalid = older[slot];
        invalid[30] ^= 1;
        for now in [older[slot], invalid, [0; 4096]] {
            let mut image = vec![0; LEN as usize];
            region.read(0, &mut image).unwrap();
            let at = HEADER_AREA as usize + slot * 4096;
            image[at..at + 4096].copy_from_slice(&now);
            let report = Explorer::new(Mode::Adr, LEN)
                .images(60)
                .samples(20)
                .depth(0)
                .setup(move |region| region.write(0, &image))
                .run(
                    |region, _| options().open_region(region).map(Log::abandon),
                    |region, _| {
                        let log = options().read_only(true).open_region(region);
                        let log = log.map_err(|error| error.to_string())?;
                        let found = all(&log);
                        if found == [(1, b"one".to_vec())] {
                            Ok(())
                        } else {
                            Err(format!("{found:?}"))
                        }
                    },
                );
            assert!(report.expect_clean().crash_points > 5, "slot {slot}");
        }
    }
}
