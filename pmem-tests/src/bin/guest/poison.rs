//! A page that is gone: making one, and what a load from one gets.
//!
//! # Safety
//!
//! Installs a signal handler, and loads from memory that is expected to fault.
#![allow(unsafe_code)]

use crate::mapping::{TRIAL_LEN, Trial, open};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a SIGBUS now comes from the load, which would fault for ever if it went on.
static LOADING: AtomicBool = AtomicBool::new(false);

const PAGE: usize = 4096;

/// Maps the file, poisons a page with `MADV_HWPOISON` (root only), and loads from it.
///
/// On a DAX file that only takes the page out of all mappings, and the next access brings it back:
/// for it, the device is told of a bad block first (`reported`), as a machine check would.
pub fn poison(path: &Path, offset: usize, reported: bool) -> io::Result<()> {
    if offset > TRIAL_LEN - PAGE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = open(path)?;
    let trial = Trial::map(&file, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
    report_sigbus()?;
    let page = trial.address.wrapping_byte_add(offset);
    // SAFETY: the page lies in the mapping, by the check above; populating and poisoning change
    // what later accesses do, and the only one is `load_from`, which expects that.
    let populated = unsafe { libc::madvise(page, PAGE, libc::MADV_POPULATE_WRITE) };
    if populated == -1 {
        return Err(io::Error::last_os_error());
    }
    if reported {
        let status = Command::new("mkbadblock").arg(path).arg(offset.to_string()).status()?;
        println!("reported={}", status.success());
    }
    // SAFETY: as above.
    if unsafe { libc::madvise(page, PAGE, libc::MADV_HWPOISON) } == -1 {
        return Err(io::Error::last_os_error());
    }
    load_from(page);
    Ok(())
}

/// Loads the first byte of the file through a mapping.
pub fn load(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    let trial = Trial::map(&file, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
    report_sigbus()?;
    load_from(trial.address);
    Ok(())
}

/// Loads from a page of a mapping.
fn load_from(page: *mut libc::c_void) {
    // SAFETY: populating changes nothing that is accessed by anyone else.
    let populated = unsafe { libc::madvise(page, PAGE, libc::MADV_POPULATE_WRITE) };
    let error = io::Error::last_os_error();
    println!("populate_write={}", if populated == 0 { "ok".into() } else { error.to_string() });
    LOADING.store(true, Ordering::Relaxed);
    // SAFETY: mapped and readable. If the page is gone the handler ends the process.
    let byte = unsafe { ptr::read_volatile(page.cast::<u8>()) };
    println!("load=ok value={byte}");
}

/// From here on a SIGBUS is printed; one that a load caused then ends the process.
fn report_sigbus() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid sigaction (default action, empty mask); the handler has
    // the signature that SA_SIGINFO asks for.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, action, ptr::null_mut())
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const BUS_MCEERR_AR: i32 = 4;
    const BUS_MCEERR_AO: i32 = 5;
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let code = unsafe { (*info).si_code };
    // SAFETY: si_addr_lsb follows si_addr, 24 bytes in, in the kernel's layout (sigaction(2)),
    // and siginfo_t is aligned to 8; for other codes the field holds padding, not used then.
    let lsb = unsafe { info.cast::<i16>().add(12).read() };
    // Printing here is sound because the signal arrives in madvise or in the one load of a
    // program with one thread: no lock of the output is held.
    let when = if LOADING.load(Ordering::Relaxed) { "load" } else { "madvise" };
    print!("during={when} ");
    match code {
        BUS_MCEERR_AO => println!("sigbus=BUS_MCEERR_AO lsb={lsb}"),
        BUS_MCEERR_AR => println!("sigbus=BUS_MCEERR_AR lsb={lsb}"),
        libc::BUS_ADRERR => println!("sigbus=BUS_ADRERR"),
        other => println!("sigbus={other}"),
    }
    if LOADING.load(Ordering::Relaxed) {
        std::process::exit(0);
    }
}
