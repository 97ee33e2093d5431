//! The first failure of durability is the last word of the region.
#![allow(unsafe_code)]

use std::sync::Barrier;
use std::thread;

use daxmap::cpu::{Cpu, guard_faults};
use daxmap::{Backend, Granularity, Region};

use super::Verdict;
use super::subject::Access;
use super::support::{
    Bench, METHODS, PAGE, Refusal, WORD_METHODS, contents, pattern, refused, same,
};
use crate::failing::with_failing;

fn errno_of(error: &daxmap::Error) -> Option<i32> {
    error.raw_os_error()
}

/// Every call about durability is refused from now on, in every thread, and says why; reads go on.
fn is_final(region: &dyn Region, model: &[u8], errno: Option<i32>) {
    let check = || {
        for method in METHODS.iter().chain(WORD_METHODS).filter(|method| method.mutates) {
            let result = (method.call)(region, 64, 8);
            let error = refused(method.name, result, Refusal::Failed);
            assert!(error.is_durability_unknown() && error.is_failed(), "{error}");
            assert_eq!(errno_of(&error), errno, "{error}");
            (method.call)(region, 64, 0).expect_err("an empty range is refused too");
        }
        refused("drain", region.drain(), Refusal::Failed);
        refused("grow", region.grow(region.len() + PAGE), Refusal::Failed);
        let mut found = vec![0; model.len()];
        region.read(0, &mut found).expect("reads go on");
        same(&found, model, "reads go on");
        region.load_u64(64).expect("loads go on");
        // SAFETY: the view is not read.
        unsafe { region.slice(0, 8) }.expect("views go on");
    };
    check();
    thread::scope(|scope| scope.spawn(check).join().expect("the same in another thread"));
    refused("close reports", region.close(), Refusal::Failed);
    refused("after close", region.write(0, b"x"), Refusal::Failed);
}

/// An emulated processor may carry a write-back out as nothing, and then it cannot fault.
fn write_backs_fault() -> bool {
    let len = PAGE as usize;
    // SAFETY: a new file and a new mapping of it, which is unmapped at the end.
    unsafe {
        let fd = libc::memfd_create(c"write-back".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "a file in memory can be made");
        let shared = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let page = libc::mmap(std::ptr::null_mut(), len, shared.0, shared.1, fd, 0);
        assert_ne!(page, libc::MAP_FAILED, "it can be mapped");
        // The file is empty: no page is there.
        let faults = guard_faults() && Cpu::get().flush(page.cast(), 1).is_err();
        libc::munmap(page, len);
        libc::close(fd);
        faults
    }
}

pub(super) fn flush_of_gone_page(bench: &Bench<'_>) -> Verdict {
    if !bench.writes_lines_back() {
        return Verdict::NotApplicable("flush touches no memory here");
    }
    if !write_backs_fault() {
        return Verdict::NotApplicable("this processor's write-backs do not fault");
    }
    for persist in [false, true] {
        let region = bench.create(8 * PAGE);
        let model = pattern(region.len(), 61);
        region.write_persist(0, &model).expect("the region can be written");
        if !bench.cut(4 * PAGE) {
            return Verdict::NotApplicable("a device cannot be truncated");
        }
        region.flush(0, 4 * PAGE).expect("pages that are left can be flushed");
        let (offset, len) = (4 * PAGE - 10, 20);
        let result = if persist { region.persist(offset, len) } else { region.flush(offset, len) };
        let error = refused("flush", result, Refusal::Gone);
        assert!(error.is_durability_unknown(), "{error}");
        assert_eq!(error.range(), Some(offset..offset + len), "{error}");
        is_final(&*region, &model[..4 * PAGE as usize], None);
        same(&bench.stored().expect("a file"), &model[..4 * PAGE as usize], "refused calls stored");
    }
    Verdict::Passed
}

/// What `pwrite` put past the cut would stand behind a hole.
pub(super) fn drain_of_shortened_file(bench: &Bench<'_>) -> Verdict {
    if bench.facts().granularity != Granularity::Page {
        return Verdict::NotApplicable("drain does not ask the file here");
    }
    let region = bench.create(8 * PAGE);
    let model = pattern(region.len(), 62);
    region.write(0, &model).expect("the region can be written");
    assert!(bench.cut(4 * PAGE), "a file can be truncated");
    let error = refused("drain", region.drain(), Refusal::Gone);
    assert!(error.is_durability_unknown(), "{error}");
    is_final(&*region, &model[..4 * PAGE as usize], None);
    Verdict::Passed
}

/// A call of the region.
type Call = fn(&dyn Region) -> daxmap::Result<()>;

const NO_SYNC: Verdict = Verdict::NotApplicable("drain makes no system call here");

pub(super) fn failed_sync(bench: &Bench<'_>) -> Verdict {
    if bench.facts().granularity != Granularity::Page {
        return NO_SYNC;
    }
    let lasts: [(&str, Call); 5] = [
        ("drain", |region| region.drain()),
        ("persist", |region| region.persist(0, 8)),
        ("write_persist", |region| region.write_persist(0, &[0xA5])),
        ("deep_flush", |region| region.deep_flush(0, 8)),
        ("close", |region| region.close()),
    ];
    for (name, last) in lasts {
        let region = bench.create(2 * PAGE);
        let mut model = pattern(region.len(), 63);
        model[0] = 0xA5;
        region.write_flush(0, &model).expect("the region can be written");
        let result = with_failing(libc::SYS_fdatasync, libc::EIO, || last(&*region));
        let error = refused(name, result, Refusal::Os(libc::EIO));
        let message = error.to_string();
        assert!(error.is_durability_unknown(), "{name}: {message}");
        assert!(
            message.contains("fdatasync") && message.contains("os error 5"),
            "{name}: {message}"
        );
        if name == "close" {
            refused(name, region.drain(), Refusal::Failed);
            refused(name, region.read(0, &mut [0]), Refusal::Closed);
        } else {
            is_final(&*region, &model, Some(libc::EIO));
        }
        drop(region);
        // The way on: open again and look.
        let region = bench.open(Access::ReadWrite);
        same(&contents(&*region), &model, "after reopening");
        region.write_persist(0, b"new").expect("a new region starts afresh");
    }
    Verdict::Passed
}

pub(super) fn no_drain_without_sync(bench: &Bench<'_>) -> Verdict {
    const THREADS: usize = 4;
    if bench.facts().granularity != Granularity::Page {
        return NO_SYNC;
    }
    let writes: [(&str, Call); 5] = [
        ("write", |region| region.write(8, b"new")),
        ("write_flush", |region| region.write_flush(8, b"new")),
        ("fill_flush", |region| region.fill_flush(8, 3, 1)),
        ("store_u64", |region| region.store_u64(8, 1)),
        ("compare_exchange_u64", |region| {
            let found = region.load_u64(8)?;
            region.compare_exchange_u64(8, found, found + 1).map(drop)
        }),
    ];
    for (name, write) in writes {
        let region = bench.create(PAGE);
        // A drain of an earlier write must not stand for this one.
        region.write_persist(0, b"old").expect("the region can be written");
        region.drain().expect("a drain of nothing works");
        write(&*region).expect("the region can be written");
        let drained = with_failing(libc::SYS_fdatasync, libc::EIO, || region.drain());
        refused(name, drained, Refusal::Os(libc::EIO));
    }
    // All threads wait for one sync; when it fails, none of them may go on.
    let region = bench.create(PAGE);
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for id in 0..THREADS as u64 {
            let (region, together) = (&region, &together);
            scope.spawn(move || {
                with_failing(libc::SYS_fdatasync, libc::EIO, || {
                    region.write(id * 8, &[1; 8]).expect("the region can be written");
                    together.wait();
                    let error = region.drain().expect_err("no sync, no success");
                    assert!(error.is_durability_unknown(), "{error}");
                });
            });
        }
    });
    Verdict::Passed
}

/// Of what another thread has flushed.
pub(super) fn sync_all_waits(bench: &Bench<'_>) -> Verdict {
    let call = match bench.facts().granularity {
        Granularity::Page => libc::SYS_fdatasync,
        Granularity::CacheLine if cfg!(target_arch = "x86_64") => libc::SYS_membarrier,
        _ => return Verdict::NotApplicable("each thread's own writes wait for nobody here"),
    };
    let region = bench.create(PAGE);
    region.write_persist(0, b"old").expect("the region can be written");
    thread::scope(|scope| {
        scope.spawn(|| region.write_flush(0, b"new").expect("the region can be written"));
    });
    let synced = with_failing(call, libc::EIO, || region.sync_all());
    refused("sync_all", synced, Refusal::Os(libc::EIO));
    if call == libc::SYS_fdatasync {
        refused("drain", region.drain(), Refusal::Failed);
        refused("sync_all", region.sync_all(), Refusal::Failed);
    } else {
        // Nothing was lost: nobody was made to wait.
        region.drain().expect("a drain of nothing works");
        region.sync_all().expect("the next one waits");
    }
    Verdict::Passed
}

/// The kernel reports a failed sync once: if growth swallows the report, the next drain of what
/// was written before would succeed.
pub(super) fn failed_sync_in_growth(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return Verdict::NotApplicable("a device has the length it has");
    }
    let region = bench.create_growable(2 * PAGE, 16 * PAGE);
    let model = pattern(region.len(), 64);
    region.write(0, &model).expect("the region can be written");
    // Where MAP_SYNC maps the file, only what is new is synced, through its mapping.
    let (call, name) = match bench.facts().backend {
        Backend::FsDax => (libc::SYS_msync, "msync"),
        _ => (libc::SYS_fsync, "fsync"),
    };
    let grown = with_failing(call, libc::EIO, || region.grow(4 * PAGE));
    let error = refused("grow", grown, Refusal::Os(libc::EIO));
    assert!(error.is_durability_unknown(), "{error}");
    assert!(error.to_string().contains(name), "{error}");
    assert_eq!(region.len(), 2 * PAGE, "the length");
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file");
    }
    is_final(&*region, &model, Some(libc::EIO));
    Verdict::Passed
}

pub(super) fn failed_deep_flush(bench: &Bench<'_>) -> Verdict {
    if bench.facts().backend != Backend::FsDax {
        return Verdict::NotApplicable("a deep flush is a drain here");
    }
    let region = bench.create(2 * PAGE);
    let model = pattern(region.len(), 65);
    region.write_persist(0, &model).expect("the region can be written");
    region.deep_flush(0, PAGE).expect("the region can be flushed deeply");
    let flushed = with_failing(libc::SYS_msync, libc::EIO, || region.deep_flush(0, 8));
    refused("deep_flush", flushed, Refusal::Os(libc::EIO));
    is_final(&*region, &model, Some(libc::EIO));
    Verdict::Passed
}
