//! Loads the configuration for a command, and reports an invalid one.

use super::args::Cli;
use crate::output::{self, CommandFailure};
use tidegate::{
    config::{self, Loaded, Problems, Source},
    escape::Escaped,
};

/// The configuration. Its problems are printed, if it has any.
pub(super) fn load(cli: &Cli) -> Result<(Source, Loaded), CommandFailure> {
    let source = config::find(cli.config.as_deref()).map_err(output::no_configuration)?;
    let loaded = config::load(&source).map_err(|problems| refused(&source, &problems))?;
    Ok((source, loaded))
}

/// Prints all problems of a configuration.
pub(super) fn refused(source: &Source, problems: &Problems) -> CommandFailure {
    for problem in problems {
        output::tell(format!("{}\n", Escaped(&problem.to_string())).as_bytes());
    }
    output::bad_configuration(source, problems.len())
}
