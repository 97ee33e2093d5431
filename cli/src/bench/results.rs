//! The rows: what table, JSON and summary are made from.

use daxmap::Durability;
use daxmap::probe::Report;

use super::engine::{self, Job};
use super::machine::Machine;
use super::measure::Track;
use super::plan::{Case, Method, Phase, SIZES};
use super::tally::{Tally, Times};
use super::trace::{Calls, Run};
use super::units;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which method at which size.
    pub case: Case,
    /// First touch or steady state.
    pub phase: Phase,
    /// What the update survives; `None` where there is nothing to survive.
    pub durability: Option<Durability>,
    /// What was measured.
    pub figures: Figures,
}

/// A line of the table of what an engine does.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// What was done.
    pub job: Job,
    /// What it survives.
    pub durability: Durability,
    /// What was measured; an update is a record of the log, or a whole file.
    pub figures: Figures,
    /// Per second, against the job that [`Job::base`] names; `None` where times are withheld.
    pub ratio: Option<f64>,
}

/// What was measured of one row.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Updates that were timed.
    pub updates: u64,
    /// `None` where times are withheld.
    pub times: Option<Times>,
    /// Bytes the device wrote per update: middle batch, and over all batches.
    pub device_bytes: Option<f64>,
    pub device_bytes_mean: Option<f64>,
    /// Flushes of the device per update.
    pub device_flushes: Option<f64>,
    /// Per update, issued by this process.
    pub fences: f64,
    pub write_backs: f64,
    pub non_temporal_lines: f64,
    /// Per update; `None` if they could not be watched.
    pub system_calls: Option<f64>,
    /// Per update.
    pub page_faults: f64,
}

/// Everything that was found.
pub struct Results {
    /// The directory, as it was given.
    pub directory: String,
    /// What lies under a file there.
    pub report: Report,
    /// Whether a mapping of a file there is a `MAP_SYNC` mapping.
    pub map_sync: bool,
    /// The machine.
    pub machine: Machine,
    /// Length of each file, in bytes.
    pub file_len: u64,
    /// Seconds the run took.
    pub seconds: f64,
    /// All rows, in the order of the table.
    pub rows: Vec<Row>,
    /// What an engine does, in the order of its table.
    pub jobs: Vec<JobRow>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

impl Results {
    /// The row of a method at a size.
    pub fn row(&self, method: Method, size: usize, phase: Phase) -> Option<&Row> {
        let wanted = Case { method, size: Some(size) };
        self.rows.iter().find(|row| row.case == wanted && row.phase == phase)
    }

    /// The row of a job.
    pub fn job(&self, job: Job) -> Option<&JobRow> {
        self.jobs.iter().find(|row| row.job == job)
    }

    /// The steady row of a method without sizes.
    pub fn floor(&self, method: Method) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == Case { method, size: None })
    }
}

/// Makes the rows, size by size, first touch before steady state.
pub fn rows(tracks: &[Track], calls: &Calls, region: Durability, machine: &Machine) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in (0..SIZES.len()).map(Some).chain([None]) {
        for track in tracks.iter().filter(|track| track.case.size == size) {
            let phases = Phase::ALL.into_iter().filter(|&phase| track.tally(phase).updates > 0);
            rows.extend(phases.map(|phase| row(track, phase, calls, region, machine)));
        }
    }
    rows
}

/// What others did to this machine and this device meanwhile, if it was enough to matter.
pub fn neighbours(tracks: &[Track], machine: &Machine) -> Vec<String> {
    /// Bytes per second of others that do not count.
    const QUIET: f64 = 100e3;
    let mut notes = Vec::new();
    if let Some(load) = machine.load.filter(|_| machine.is_busy()) {
        notes.push(format!(
            "{load} processes were running on {} CPUs when this began: the times are those of a \
             busy machine",
            machine.cpus
        ));
    }
    // Methods that never leave the processor write nothing: what the device counts then is others'.
    let idle = tracks.iter().filter(|track| track.case.method.stays_in_processor());
    let (bytes, ns) = idle.fold((0, 0), |(bytes, ns), track| {
        let tally = track.tally(Phase::Steady);
        (bytes + tally.all_device_bytes(), ns + tally.total_ns())
    });
    let rate = bytes as f64 * 1e9 / (ns.max(1) as f64);
    if rate > QUIET {
        notes.push(format!(
            "others wrote {}/s to the device meanwhile: device B/op may hold some of it",
            units::bytes(rate)
        ));
    }
    notes
}

fn row(track: &Track, phase: Phase, calls: &Calls, region: Durability, machine: &Machine) -> Row {
    let run = Run::Update(track.case, phase);
    Row {
        case: track.case,
        phase,
        durability: track.case.method.durability(region),
        figures: figures(track.tally(phase), calls.get(&run).copied(), machine),
    }
}

/// Makes the rows of what an engine does.
pub fn job_rows(
    tracks: &[engine::Track],
    calls: &Calls,
    region: Durability,
    machine: &Machine,
) -> Vec<JobRow> {
    let row = |track: &engine::Track| {
        let base = tracks.iter().find(|other| other.job == track.job.base());
        let ratio = base.and_then(|base| track.tally.ratio(&base.tally));
        JobRow {
            job: track.job,
            durability: track.job.durability(region),
            figures: figures(&track.tally, calls.get(&Run::Job(track.job)).copied(), machine),
            ratio: if machine.times_withheld.is_some() { None } else { ratio },
        }
    };
    tracks.iter().filter(|track| track.tally.updates > 0).map(row).collect()
}

fn figures(tally: &Tally, system_calls: Option<f64>, machine: &Machine) -> Figures {
    Figures {
        updates: tally.updates,
        times: if machine.times_withheld.is_some() { None } else { tally.times() },
        device_bytes: tally.device_bytes(),
        device_bytes_mean: tally.device_bytes_mean(),
        device_flushes: tally.device_flushes(),
        fences: tally.fences(),
        write_backs: tally.write_backs(),
        non_temporal_lines: tally.non_temporal_lines(),
        system_calls,
        page_faults: tally.faults(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::Batch;
    use super::*;

    fn rows(times_withheld: Option<&'static str>) -> Vec<JobRow> {
        let mut tracks = Vec::new();
        for (threads, busy_ns) in [(1, 400), (4, 100)] {
            let mut tally = Tally::default();
            tally.add(&Batch { times_ns: vec![100; 4], busy_ns, ..Batch::default() });
            tracks.push(engine::Track { job: Job::Persist { threads }, tally });
        }
        let machine = Machine { times_withheld, ..Machine::here() };
        job_rows(&tracks, &Calls::new(), Durability::Fsync, &machine)
    }

    #[test]
    fn rows_are_found_by_all_that_tells_them_apart() {
        use super::super::plan::SUMMARY_SIZE;
        use super::super::sample::{results, row};
        let mut first = row(Method::PwriteFsync, 10);
        first.phase = Phase::FirstTouch;
        let fsync = row(Method::PwriteFsync, 20);
        let rows = vec![first, row(Method::DsyncPwrite, 30), fsync, row(Method::Clock, 40)];
        let results = results(rows);
        let time = |row: Option<&Row>| row.and_then(|row| row.figures.times).map(|t| t.p50_ns);
        let found = |method, size, phase| time(results.row(method, size, phase));
        assert_eq!(found(Method::PwriteFsync, SUMMARY_SIZE, Phase::FirstTouch), Some(10));
        assert_eq!(found(Method::PwriteFsync, SUMMARY_SIZE, Phase::Steady), Some(20));
        assert_eq!(found(Method::DsyncPwrite, SUMMARY_SIZE, Phase::Steady), Some(30));
        assert_eq!(found(Method::DsyncPwrite, SUMMARY_SIZE + 1, Phase::Steady), None);
        assert_eq!(found(Method::DsyncPwrite, SUMMARY_SIZE, Phase::FirstTouch), None);
        assert_eq!(time(results.floor(Method::Clock)), Some(40));
        assert_eq!(time(results.floor(Method::PwriteFsync)), None);
    }

    #[test]
    fn neighbours_are_told_of_where_they_matter() {
        use super::super::device::Reading;
        let machine = |load| Machine { load, cpus: 2, ..Machine::here() };
        let track = |method, bytes, busy_ns| {
            let mut tally = Tally::default();
            let device = Reading { bytes: Some(bytes), flushes: None };
            tally.add(&Batch { times_ns: vec![busy_ns], busy_ns, device, ..Batch::default() });
            Track::of(Case { method, size: None }, tally)
        };
        let quiet = machine(Some(0.5));
        let second = 1_000_000_000;
        // What a method that writes has written is its own.
        let own = track(Method::PwriteFsync, 1 << 30, second);
        assert_eq!(neighbours(&[own], &quiet), [""; 0]);
        let idle = |bytes| [Method::Copy, Method::Clock].map(|of| track(of, bytes, second / 2));
        assert_eq!(neighbours(&idle(50_000), &quiet), [""; 0], "100 kB a second do not count");
        let said = neighbours(&idle(2 << 20), &quiet);
        let expected = "others wrote 4.00 MiB/s to the device meanwhile: device B/op may hold some";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        let said = neighbours(&[], &machine(Some(3.5)));
        let expected = "3.5 processes were running on 2 CPUs when this began";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        for load in [None, Some(1.0)] {
            assert_eq!(neighbours(&[], &machine(load)), [""; 0]);
        }
        assert_eq!(neighbours(&[], &machine(Some(1.1))).len(), 1);
    }

    #[test]
    fn jobs_without_an_update_have_no_row() {
        let tracks = [engine::Track { job: Job::Persist { threads: 1 }, tally: Tally::default() }];
        assert!(job_rows(&tracks, &Calls::new(), Durability::Fsync, &Machine::here()).is_empty());
    }

    #[test]
    fn jobs_are_compared_with_their_base() {
        let rows = rows(None);
        assert_eq!([rows[0].ratio, rows[1].ratio], [Some(1.0), Some(4.0)]);
        assert!(rows.iter().all(|row| row.figures.times.is_some()));
        assert!(rows.iter().all(|row| row.durability == Durability::Fsync));
    }

    #[test]
    fn a_ratio_is_withheld_as_times_are() {
        for row in rows(Some("emulated")) {
            assert_eq!((row.ratio, row.figures.times), (None, None));
            assert_eq!(row.figures.updates, 4, "counts hold");
        }
    }
}
