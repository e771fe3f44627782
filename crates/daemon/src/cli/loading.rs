//! The configuration for a command, and what is said of a bad one.

use super::args::Cli;
use crate::output::{self, Failure};
use tidegate::{
    config::{self, Loaded, Problems, Source},
    escape::Escaped,
};

/// The configuration, with its problems printed where it has any.
pub(super) fn load(cli: &Cli) -> Result<(Source, Loaded), Failure> {
    let source = config::find(cli.config.as_deref()).map_err(output::no_configuration)?;
    let loaded = config::load(&source).map_err(|problems| refused(&source, &problems))?;
    Ok((source, loaded))
}

/// Says all that is wrong with a configuration.
pub(super) fn refused(source: &Source, problems: &Problems) -> Failure {
    for problem in problems {
        output::tell(format!("{}\n", Escaped(&problem.to_string())).as_bytes());
    }
    output::bad_configuration(source, problems.len())
}
