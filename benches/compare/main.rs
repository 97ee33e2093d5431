//! The library beside libpmem, hand-written loops and memmap2, in one run, interleaved.
//!
//! `ci/bench` runs this and prints its table. Persistent memory is emulated on DRAM: the times
//! compare instruction sequences and say nothing about a persistent medium.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

#[cfg(target_arch = "x86_64")]
mod groups;
#[cfg(target_arch = "x86_64")]
mod hand;
#[cfg(target_arch = "x86_64")]
mod interleave;
#[cfg(target_arch = "x86_64")]
mod libpmem;

fn main() {
    let libpmem = libpmem::Libpmem::load();
    let region =
        daxmap::Options::new().len(128 << 20).emulate(daxmap::Emulation::Adr).in_memory().unwrap();
    let source = vec![0x5a_u8; (16 << 20) + 64];
    let source = &source[source.as_ptr().align_offset(64)..];
    let hurry = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1);
    let ground = groups::Ground { region: &region, source, libpmem: libpmem.ok(), hurry };
    let show = |title: &str, o: &interleave::Outcome, r: &str| {
        println!("-- {title}");
        for n in o.names() {
            let s = o.spread(n).unwrap();
            let q = o.ratio(n, r).unwrap();
            println!(
                "{n:28} {:10.1} [{:10.1} {:10.1}]  {:.3} [{:.3} {:.3}]",
                s.median, s.q1, s.q3, q.median, q.q1, q.q3
            );
        }
    };
    if std::env::var("EXP3").is_ok() {
        for len in [64, 256, 512, 1024, 2048, 4096, 8192, 16384] {
            show(&format!("batch {len}"), &groups::batch(&ground, len), groups::CACHED);
        }
        for (off, len) in [
            (0, 100),
            (0, 68),
            (3, 100),
            (0, 253),
            (3, 250),
            (3, 509),
            (3, 700),
            (0, 700),
            (3, 1000),
            (3, 2000),
            (3, 4090),
        ] {
            show(
                &format!("ragged {off}+{len}"),
                &groups::ragged(&ground, off, len),
                groups::CACHED,
            );
        }
        return;
    }
    if std::env::var("EXP2").is_ok() {
        for hot in [false, true] {
            for len in [64, 256, 1024, 4096] {
                show(
                    &format!("readback {len} {hot}"),
                    &groups::readback(&ground, len, hot),
                    groups::CACHED,
                );
            }
            for len in [512, 4096, 16384, 65536, 262144, 1 << 20, 4 << 20, 16 << 20] {
                show(
                    &format!("eadr {len} {hot}"),
                    &groups::eadr(&ground, len, hot),
                    groups::CACHED,
                );
            }
        }
        for (off, len) in [
            (0, 100),
            (0, 68),
            (3, 100),
            (0, 253),
            (3, 250),
            (3, 509),
            (3, 700),
            (0, 700),
            (3, 1000),
            (3, 2000),
            (3, 4090),
        ] {
            show(
                &format!("ragged {off}+{len}"),
                &groups::ragged(&ground, off, len),
                groups::CACHED,
            );
        }
        return;
    }
    if std::env::var("EXP").is_ok() {
        for hot in [false, true] {
            for (off, len) in [
                (0, 8),
                (0, 16),
                (0, 32),
                (0, 48),
                (8, 48),
                (32, 64),
                (8, 112),
                (8, 200),
                (8, 384),
                (8, 1016),
                (8, 1024),
                (16, 4096),
            ] {
                show(
                    &format!("exp {off}+{len} {hot}"),
                    &groups::experiment(&ground, off, len, hot),
                    groups::CACHED,
                );
            }
        }
        return;
    }
    for len in [8, 64] {
        show(&format!("persist {len}"), &groups::persist(&ground, len), groups::BARE);
    }
    for len in [64, 256, 1024, 4096, 65536, 1 << 20, 16 << 20] {
        show(&format!("durable {len}"), &groups::durable_write(&ground, len), groups::DIRECT_COPY);
    }
    for hot in [false, true] {
        for len in [64, 128, 192, 256, 320, 384, 512, 768, 1024, 2048, 4096, 8192] {
            show(
                &format!("crossover hot={hot} {len}"),
                &groups::crossover(&ground, len, hot),
                groups::CACHED,
            );
        }
    }
    show("trait", &groups::trait_object(&ground), groups::DIRECT);
    show("memmap2", &groups::memmap2(&ground, 64), groups::DIRECT_COPY);
}
