//! What is shown while a run goes on: a bar a phase on a terminal, a line for each phase that is
//! over; both on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Totals;
use crate::config::show_count;

/// How much of a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Bars that move, and lines.
    Bars,
    /// A line for each phase that is over.
    Lines,
    Nothing,
}

/// What a phase counts towards its end.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Connections opened or failed, of so many.
    Connections(u64),
    /// Time, while something is counted.
    Time(Duration, Counted),
    /// Connections that answered, of so many.
    Answers(u64),
    /// Connections that are still open, of so many.
    Closing(u64),
}

/// What happens in a phase that lasts for a time.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    Messages,
    Handshakes,
    Connections,
}

/// One phase as it is shown.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    name: &'static str,
    goal: Goal,
    began: Totals,
    bar: ProgressBar,
}

impl Progress {
    pub fn new(show: Show, name: &'static str, goal: Goal, began: Totals) -> Self {
        let length = match goal {
            Goal::Connections(count) | Goal::Answers(count) | Goal::Closing(count) => count,
            Goal::Time(time, _) => time.as_millis() as u64,
        };
        let bar = match show {
            Show::Bars => ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()),
            _ => ProgressBar::hidden(),
        };
        // Fits 80 columns; the template is a constant, so that the default never shows.
        let style = ProgressStyle::with_template("{prefix:<9} {bar:30} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name);
        Self {
            show,
            name,
            goal,
            began,
            bar,
        }
    }

    /// Shows where the phase is.
    pub fn update(&self, now: &Totals, elapsed: Duration) {
        if self.show == Show::Bars {
            self.bar.set_position(self.position(now, elapsed));
            self.bar.set_message(self.text(now, elapsed));
        }
    }

    /// Shows what the phase came to.
    pub fn finish(self, now: &Totals, elapsed: Duration) {
        self.bar.finish_and_clear();
        if self.show != Show::Nothing {
            eprintln!("{:<9} {}", self.name, self.text(now, elapsed));
        }
    }

    fn position(&self, now: &Totals, elapsed: Duration) -> u64 {
        match self.goal {
            Goal::Connections(_) => now.opened + now.failed,
            Goal::Answers(_) => now.probes_answered - self.began.probes_answered,
            Goal::Time(..) => elapsed.as_millis() as u64,
            Goal::Closing(count) => count.saturating_sub(now.open),
        }
    }

    fn text(&self, now: &Totals, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64();
        let rate = |count: u64| show_count((count as f64 / seconds.max(1e-3)) as u64);
        let bad = |count: u64, what: &str| match count {
            0 => String::new(),
            count => format!(", {} {what}", show_count(count)),
        };
        match self.goal {
            Goal::Connections(_) => format!(
                "{} connections in {seconds:.1} s ({}/s){}",
                show_count(now.opened),
                rate(now.opened),
                bad(now.failed, "failed")
            ),
            Goal::Time(_, Counted::Messages) => {
                let count = now.messages_received - self.began.messages_received;
                format!(
                    "{} messages in {seconds:.1} s ({}/s){}",
                    show_count(count),
                    rate(count),
                    bad(now.messages_lost, "lost")
                )
            }
            Goal::Time(_, Counted::Handshakes) => format!(
                "{} handshakes in {seconds:.1} s ({}/s){}",
                show_count(now.opened),
                rate(now.opened),
                bad(now.failed, "failed")
            ),
            Goal::Time(_, Counted::Connections) => format!(
                "{} connections for {seconds:.1} s{}",
                show_count(now.open),
                bad(now.lost, "lost")
            ),
            Goal::Answers(_) => {
                let count = now.probes_answered - self.began.probes_answered;
                format!(
                    "{} answers in {seconds:.1} s ({}/s)",
                    show_count(count),
                    rate(count)
                )
            }
            Goal::Closing(count) => format!(
                "{} connections in {seconds:.1} s",
                show_count(count - now.open.min(count))
            ),
        }
    }
}
