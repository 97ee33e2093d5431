//! The progress bar: by time, on a terminal only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redrawn no more often: drawing costs time that a batch would notice.
const REDRAW: Duration = Duration::from_millis(200);

/// A bar that fills with the time that a run may take, and goes with this; nothing where nobody looks.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    last: std::cell::Cell<Instant>,
}

impl Progress {
    /// For a run of about this long.
    pub fn new(start: Instant, total: Duration) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(
                Some(total.as_millis() as u64),
                ProgressDrawTarget::stderr(),
            )
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{msg:16} [{bar:40}] {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, start, last: std::cell::Cell::new(start) }
    }

    /// Says what comes now.
    pub fn stage(&self, what: &'static str) {
        self.bar.set_message(what);
        self.draw();
    }

    /// Time has passed.
    pub fn tick(&self) {
        if self.last.get().elapsed() >= REDRAW {
            self.draw();
        }
    }

    fn draw(&self) {
        self.last.set(Instant::now());
        let elapsed = self.start.elapsed().as_millis() as u64;
        let total = self.bar.length().unwrap_or(elapsed);
        self.bar.set_position(elapsed.min(total));
    }
}
