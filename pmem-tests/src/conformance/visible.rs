//! Who sees a write, and when.

use std::io::IoSlice;

use super::Verdict;
use super::subject::Access;
use super::support::{Bench, PAGE, Refusal, contents, pattern, refused, same};

const LEN: u64 = 4 * PAGE + 77;

pub(super) fn read_your_writes(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let mut model = vec![0; region.len() as usize];
    let mut at = 3_usize;
    for round in 0..10 {
        for size in [1, 8, 100, 1024, 5000] {
            let data = pattern(size, round);
            let offset = at as u64 % (region.len() - size);
            at = at.wrapping_mul(31).wrapping_add(101);
            match round % 5 {
                0 => region.write(offset, &data),
                1 => region.write_flush(offset, &data),
                2 => region.write_persist(offset, &data),
                3 => region.write_stream(offset, &data),
                _ => region.fill_flush(offset, size, data[0]),
            }
            .expect("a write inside works");
            let range = offset as usize..(offset + size) as usize;
            match round % 5 {
                4 => model[range].fill(data[0]),
                _ => model[range].copy_from_slice(&data),
            }
            same(&contents(&*region), &model, "the region after a write");
        }
        let word = 0x0123_4567_89AB_CDEF ^ round;
        region.store_u64(64, word).expect("a word can be stored");
        model[64..72].copy_from_slice(&word.to_ne_bytes());
        assert_eq!(region.load_u64(64).expect("a word can be loaded"), word);
        same(&contents(&*region), &model, "the region after a word");
        // A word written as bytes loads in the machine's order.
        region.write(128, &(!word).to_ne_bytes()).expect("a write inside works");
        model[128..136].copy_from_slice(&(!word).to_ne_bytes());
        assert_eq!(region.load_u64(128).expect("a word can be loaded"), !word);
    }
    Verdict::Passed
}

pub(super) fn visible_before_drain(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let reader = bench.open(Access::ReadOnly);
    assert_eq!(reader.len(), region.len());
    for (round, offset) in [0, 1, 63, PAGE - 3, 2 * PAGE, LEN - 300].into_iter().enumerate() {
        let data = pattern(300, round as u64);
        match round % 3 {
            0 => region.write(offset, &data),
            1 => region.write_flush(offset, &data),
            _ => region.fill_flush(offset, 300, 0x42),
        }
        .expect("a write inside works");
        let expected = if round % 3 == 2 { vec![0x42; 300] } else { data };
        let mut found = vec![0; 300];
        reader.read(offset, &mut found).expect("the reader reads");
        same(&found, &expected, "another region of the file, before drain");
        region.store_u64(PAGE, round as u64).expect("a word can be stored");
        assert_eq!(reader.load_u64(PAGE).expect("the reader loads"), round as u64);
        region
            .compare_exchange_u64(PAGE, round as u64, !0)
            .expect("a word can be exchanged")
            .expect("it is what was stored");
        assert_eq!(reader.load_u64(PAGE).expect("the reader loads"), !0);
    }
    Verdict::Passed
}

pub(super) fn reaches_the_file(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let model = pattern(region.len(), 9);
    region.write(0, &model).expect("the region can be written");
    let Some(stored) = bench.stored() else {
        return Verdict::NotApplicable("the device cannot be read with read(2)");
    };
    same(&stored, &model, "the file, before drain");
    region.persist(0, region.len()).expect("the region can be persisted");
    same(&bench.stored().expect("read before"), &model, "the file, after drain");
    Verdict::Passed
}

pub(super) fn sent(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let mut model = vec![0; region.len() as usize];
    if bench.stored().is_none() {
        region.send().expect("there is nothing to send");
        return Verdict::NotApplicable("the device cannot be read with read(2)");
    }
    for (round, offset) in [0, 300, 100, 2 * PAGE, PAGE - 3].into_iter().enumerate() {
        let data = pattern(300, round as u64);
        region.write(offset, &data).expect("a write inside works");
        model[offset as usize..][..300].copy_from_slice(&data);
        region.send().expect("it can be sent");
        same(&bench.stored().expect("read before"), &model, "the file, before drain");
    }
    region.send().expect("there is nothing to send");
    region.close().expect("a region can be closed");
    refused("send after close", region.send(), Refusal::Closed);
    Verdict::Passed
}

pub(super) fn in_parts(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let mut model = pattern(region.len(), 61);
    region.write(0, &model).expect("the region can be written");
    // No part, empty ones, small ones that are gathered, and ones that are not.
    let few: &[&[usize]] = &[&[], &[0, 0], &[1, 0, 7, 8], &[100, 5000, 3, 4096], &[300; 40]];
    for (round, lens) in (0..).zip(few) {
        let offset = [0, 5, 4093, 77, 9][round as usize];
        let data = pattern(lens.iter().sum::<usize>() as u64, round);
        let mut rest = &data[..];
        let parts: Vec<IoSlice<'_>> = (lens.iter())
            .map(|&len| {
                let (part, others) = rest.split_at(len);
                rest = others;
                IoSlice::new(part)
            })
            .collect();
        region.write_vectored(offset, &parts).expect("parts inside work");
        model[offset as usize..][..data.len()].copy_from_slice(&data);
        same(&contents(&*region), &model, "the region after parts");
    }
    // Each of them fits, together they do not.
    let part = vec![9; region.len() as usize / 2 + 1];
    let parts = [IoSlice::new(&part), IoSlice::new(&part)];
    refused("parts past the end", region.write_vectored(0, &parts), Refusal::OutOfBounds);
    same(&contents(&*region), &model, "the region after parts that do not fit");
    region.flush(0, region.len()).and_then(|()| region.drain()).expect("parts can be persisted");
    Verdict::Passed
}

pub(super) fn whole_pages(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let mut model = pattern(region.len(), 62);
    region.write_persist(0, &model).expect("the region can be written");
    for (offset, len) in [(0, 2048), (0, 4097), (0, 128 << 10), (2048, 4096)] {
        let refusal = region.write_atomic(offset, &vec![1; len]);
        refusal.expect_err("no page is as long, or lies there");
        same(&contents(&*region), &model, "after a page that is none");
    }
    region.write(PAGE - 10, &[3; 20]).expect("a small write");
    model[PAGE as usize - 10..][..20].fill(3);
    match region.write_atomic(PAGE, &[4; PAGE as usize]) {
        Ok(()) => model[PAGE as usize..2 * PAGE as usize].fill(4),
        refusal => drop(refused("a page", refusal, Refusal::Unsupported)),
    }
    same(&contents(&*region), &model, "after a page");
    region.drain().expect("a page that was refused fails nothing");
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file");
    }
    Verdict::Passed
}
