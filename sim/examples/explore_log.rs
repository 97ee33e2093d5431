//! A log, tested against every crash by the simulator, and the bug that this finds.
//!
//!     cargo run --release -p daxmap-sim --example explore_log
//!
//! Records have a length, a checksum and a payload. The careless writer reckons the range to
//! flush from where the record ends and not from where it begins.

use daxmap::{Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, SimRegion};

/// Length and checksum, a word each.
const HEADER: u64 = 16;
/// Room for a record.
const STEP: u64 = 64;

/// A log over any region.
struct Log<R> {
    region: R,
    end: u64,
    careless: bool,
}

/// Of the place as well: a record that was read at another place is none.
fn checksum(place: u64, payload: &[u8]) -> u64 {
    let bytes = [&place.to_le_bytes(), payload].concat();
    u64::from(crc32fast::hash(&bytes)) | 1 << 32
}

impl<R: Region> Log<R> {
    /// Opens the log: finds its end and hands every record to `each`.
    fn open(region: R, careless: bool, mut each: impl FnMut(&[u8])) -> Result<Self> {
        let mut end = 0;
        while end + STEP <= region.len() {
            let (len, sum) = (region.load_u64(end)?, region.load_u64(end + 8)?);
            if len == 0 || len > STEP - HEADER {
                break;
            }
            let mut payload = vec![0; len as usize];
            region.read(end + HEADER, &mut payload)?;
            if sum != checksum(end, &payload) {
                break;
            }
            each(&payload);
            end += STEP;
        }
        Ok(Self { region, end, careless })
    }

    /// Appends a record, durable on return.
    fn append(&mut self, payload: &[u8]) -> Result<()> {
        let at = self.end;
        self.region.write(at + HEADER, payload)?;
        self.region.store_u64(at + 8, checksum(at, payload))?;
        self.region.store_u64(at, payload.len() as u64)?;
        if self.careless {
            self.region.persist(at + STEP, payload.len() as u64)?;
        } else {
            self.region.persist(at, HEADER + payload.len() as u64)?;
        }
        self.end += STEP;
        Ok(())
    }
}

/// Appends records of so many bytes.
fn workload(careless: bool) -> impl Fn(&SimRegion, &Notes, &[usize]) -> Result<()> + Send + Sync {
    move |region, notes, lens| {
        let mut log = Log::open(region.clone(), careless, |_| ())?;
        for (number, &len) in (1..).zip(lens) {
            notes.begin(number);
            log.append(&vec![number as u8; len])?;
            notes.ack(number);
        }
        Ok(())
    }
}

/// What was acknowledged is there, in order; what was never begun is not.
fn check(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
    let mut found = Vec::new();
    Log::open(region, false, |payload| found.push(payload[0])).map_err(|e| e.to_string())?;
    history.recovered(&found.len());
    let count = found.len() as u64;
    if found.iter().zip(1..).any(|(&byte, number)| byte != number) {
        return Err(format!("the records are {found:?}"));
    }
    let (least, most) = (history.last_acked().unwrap_or(0), history.last_begun().unwrap_or(0));
    if (least..=most).contains(&count) {
        Ok(())
    } else {
        Err(format!("{count} records, where {least} were acknowledged and {most} begun"))
    }
}

fn main() {
    let lens = [1, 40, 48, 9];
    let mut clean = true;
    for mode in Mode::ALL {
        let report = Explorer::new(mode, 1024).run_ops(&lens, workload(false), check);
        clean &= report.failure.is_none();
        println!("{mode:?}: {report}");
    }
    println!("\nThe same with a flush that misses its range:\n");
    let report = Explorer::new(Mode::Adr, 1024).run_ops(&lens, workload(true), check);
    println!("{report}");
    std::process::exit(i32::from(!clean || report.failure.is_none()));
}
