//! Throughput of durable writes by size, with criterion.
//!
//! Criterion's own strengths are used here: a curve over sizes, a report that is kept, and a
//! comparison with the last run of the same benchmark (`target/criterion`). It measures one
//! benchmark for seconds, then the next; what has to be told apart by a few per cent is in
//! `benches/compare` instead. Persistent memory is emulated on DRAM.

#![allow(missing_docs)] // criterion_group! makes a public function

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use daxmap::{AnyRegion, Emulation, Options, Region};

const SPAN: usize = 64 << 20;

fn region(memory: Emulation) -> AnyRegion {
    let options = Options::new().len(SPAN as u64).emulate(memory);
    options.in_memory().expect("a region in memory")
}

/// Calls with one offset after another, so that lines are fresh.
fn walk(len: usize) -> impl FnMut() -> u64 {
    let stride = len.next_multiple_of(64);
    let mut next = 0;
    move || {
        let offset = next;
        next = if next + 2 * stride > SPAN { 0 } else { next + stride };
        offset as u64
    }
}

fn durable_write(criterion: &mut Criterion) {
    let source = vec![0x5a_u8; 16 << 20];
    for (name, memory) in [("adr", Emulation::Adr), ("eadr", Emulation::Eadr)] {
        let region = region(memory);
        let mut group = criterion.benchmark_group(format!("write_persist, emulated {name}"));
        for len in [8, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 16 << 20] {
            let mut next = walk(len);
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
                bencher.iter(|| region.write_persist(next(), black_box(&source[..len])));
            });
        }
        group.finish();
    }
}

/// Records of 64 bytes, a number of them to a fence: the fence is the price.
fn batches(criterion: &mut Criterion) {
    let region = region(Emulation::Adr);
    let record = [0x5a_u8; 64];
    let mut group = criterion.benchmark_group("64-byte records to a fence, emulated adr");
    for count in [1_u64, 4, 16, 64] {
        let mut next = walk(64);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                for _ in 0..count {
                    region.write_flush(next(), black_box(&record))?;
                }
                region.drain()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = curves;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = durable_write, batches
}
criterion_main!(curves);
