//! One run with everything around it: the machine before, the live line, the readings of the broker's metrics at the
//! window's start and at the end of the run.

use crate::arguments::Workload;
use crate::machine::Machine;
use crate::metrics::{MetricsError, MetricsUrl, MetricsWatch};
use crate::prices::Prices;
use crate::report::live::LiveLine;
use crate::report::{Report, command_line};
use crate::result::{Progress, Stage};
use crate::workload::{self, RunError};
use std::time::SystemTime;

/// What a run is told besides its workload.
pub(crate) struct Session {
    /// What is measured.
    pub label: String,
    /// The broker's metrics.
    pub metrics: Option<MetricsUrl>,
    /// What its requests cost.
    pub prices: Prices,
    /// What the live line begins with.
    pub before: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The run could not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The metrics were named but can't be read.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

impl Session {
    /// Runs `workload`.
    ///
    /// # Errors
    /// When it can't start, or the metrics can't be read: a report without what was asked for would be taken for whole.
    pub(crate) fn run(&self, workload: &Workload) -> Result<Report, SessionError> {
        let machine = Machine::look();
        let live = LiveLine::new(&self.before);
        let (mut started, mut metrics) = (None, None);
        let result = workload::run(workload, &mut |progress: &Progress| {
            if progress.stage != Stage::WarmUp && started.is_none() {
                started = Some(SystemTime::now() - progress.elapsed);
                metrics = self.metrics.clone().map(MetricsWatch::start);
            }
            live.show(progress);
        })?;
        drop(live);
        let told = metrics.map(MetricsWatch::end).transpose()?;
        Ok(Report {
            label: self.label.clone(),
            command: command_line(),
            started: started.unwrap_or_else(SystemTime::now),
            machine,
            result,
            store: told.map(|told| told.store),
            ack_share: told.and_then(|told| told.ack_share),
            prices: self.prices.clone(),
        })
    }
}
